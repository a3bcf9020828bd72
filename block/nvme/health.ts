/**
 * What a controller counts and remembers: the SMART and error logs.
 *
 * Kernel counterpart: struct nvme_smart_log; the structures of the error log.
 *
 * @module
 */

import type { Command } from "./command.ts";
import { putU64 } from "./identify.ts";
import { NVME_NSID, NVME_SC_READ_ERROR, NVME_SC_WRITE_FAULT } from "./nvme.ts";

/** Bytes of the SMART log. */
const SMART_SIZE = 512;
/** Bytes that one "data unit" stands for. */
const DATA_UNIT = 512 * 1000;
/** 35 degrees Celsius, in kelvin. */
const TEMPERATURE = 308;

/** Errors that are remembered. */
const ERROR_LOG_ENTRIES = 64;
/** Bytes of an entry of the error log. */
const ERROR_ENTRY_SIZE = 64;
/** Type and code of a status. */
const STATUS_MASK = 0x7ff;

/** Counters over the life of a device, and the last errors. */
export class Health {
  #bytesRead = 0;
  #bytesWritten = 0;
  #reads = 0;
  #writes = 0;
  #powerCycles = 1;
  #unsafeShutdowns = 0;
  #mediaErrors = 0;
  #errors = 0;
  /** The last errors; entry `n` is in slot `n` modulo their number. */
  readonly #log = new Uint8Array(ERROR_LOG_ENTRIES * ERROR_ENTRY_SIZE);

  /** A command has read `bytes`. */
  countRead(bytes: number): void {
    this.#reads++;
    this.#bytesRead += bytes;
  }

  /** A command has written `bytes`. */
  countWrite(bytes: number): void {
    this.#writes++;
    this.#bytesWritten += bytes;
  }

  /** The power has come back. @param unsafe Whether it went without a shutdown. */
  countPowerOn(unsafe: boolean): void {
    this.#powerCycles++;
    if (unsafe) this.#unsafeShutdowns++;
  }

  /** A command has failed. @param blockSize Bytes of a logical block. */
  noteError(command: Command, blockSize: number): void {
    const { status } = command;
    const code = status & STATUS_MASK;
    if (code === NVME_SC_READ_ERROR || code === NVME_SC_WRITE_FAULT) {
      this.#mediaErrors++;
    }
    const slot = this.#errors++ % ERROR_LOG_ENTRIES;
    const view = new DataView(
      this.#log.buffer,
      slot * ERROR_ENTRY_SIZE,
      ERROR_ENTRY_SIZE,
    );
    putU64(view, 0, this.#errors);
    view.setUint16(8, command.qid, true);
    view.setUint16(10, command.cid, true);
    view.setUint16(12, status << 1, true);
    view.setUint16(14, 0xffff, true);
    putU64(view, 16, Math.floor(command.at / blockSize));
    view.setUint32(24, command.qid === 0 ? 0 : NVME_NSID, true);
  }

  /** The SMART log (page 0x02). @param now Nanoseconds that the device has run. */
  smartLog(now: number): Uint8Array {
    const data = new Uint8Array(SMART_SIZE);
    const view = new DataView(data.buffer);
    view.setUint16(1, TEMPERATURE, true);
    // Spare: all of it, with a threshold of a tenth.
    data[3] = 100;
    data[4] = 10;
    putU64(view, 32, Math.ceil(this.#bytesRead / DATA_UNIT));
    putU64(view, 48, Math.ceil(this.#bytesWritten / DATA_UNIT));
    putU64(view, 64, this.#reads);
    putU64(view, 80, this.#writes);
    putU64(view, 112, this.#powerCycles);
    putU64(view, 128, Math.floor(now / 3.6e12));
    putU64(view, 144, this.#unsafeShutdowns);
    putU64(view, 160, this.#mediaErrors);
    putU64(view, 176, this.#errors);
    return data;
  }

  /** The error log (page 0x01): newest first. */
  errorLog(): Uint8Array {
    const data = new Uint8Array(this.#log.length);
    const count = Math.min(this.#errors, ERROR_LOG_ENTRIES);
    for (let i = 0; i < count; i++) {
      const from = (this.#errors - 1 - i) % ERROR_LOG_ENTRIES *
        ERROR_ENTRY_SIZE;
      data.set(
        this.#log.subarray(from, from + ERROR_ENTRY_SIZE),
        i * ERROR_ENTRY_SIZE,
      );
    }
    return data;
  }
}
