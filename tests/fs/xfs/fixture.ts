/**
 * Devices with a new file system on them.
 *
 * @module
 */

import { createNvme, type NvmeDevice, VirtualClock } from "../../../mod.ts";
import { mkfsXfs, type MkfsXfsOptions } from "../../../fs/xfs/mkfs.ts";

export { xfs } from "../../../fs/xfs/super.ts";

/** A device with a new, empty file system.
 * @param preset Of the device; "null" answers at once. */
export async function newXfs(
  { size = 64 * 2 ** 20, preset = "null", ...options }: MkfsXfsOptions & {
    size?: number;
    preset?: string;
  } = {},
): Promise<NvmeDevice> {
  const device = createNvme(new VirtualClock(), { size, preset });
  await mkfsXfs(device, { seed: 1, ...options });
  return device;
}
