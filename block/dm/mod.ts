/**
 * Devices made of other devices: parts of one, several striped, and layers that
 * delay, fail, lose, change or log what passes.
 *
 * @module
 */

export { DelayDevice, type DelayOptions } from "./delay.ts";
export { DmDevice, type DmLeg, type DmOptions, type DmTable } from "./dm.ts";
export { ErrorDevice, type ErrorOptions } from "./error.ts";
export {
  type CorruptByte,
  FlakeyDevice,
  type FlakeyOptions,
} from "./flakey.ts";
export { LinearDevice, type LinearOptions } from "./linear.ts";
export {
  LOG_DISCARD_FLAG,
  LOG_FLUSH_FLAG,
  LOG_FUA_FLAG,
  LOG_MARK_FLAG,
  LOG_METADATA_FLAG,
  type LogEntry,
  LogWritesDevice,
  type LogWritesOptions,
  WriteLog,
} from "./log-writes.ts";
export { StripeDevice, type StripeOptions } from "./stripe.ts";
