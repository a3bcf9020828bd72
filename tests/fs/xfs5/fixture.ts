/**
 * Devices with a new file system on them.
 *
 * @module
 */

import { createNvme, type NvmeDevice, VirtualClock } from "../../../mod.ts";
import { mkfsXfs, type MkfsXfsOptions } from "../../../fs/xfs5/mkfs.ts";

export { xfs } from "../../../fs/xfs5/super.ts";

/** A device with a new, empty file system. */
export async function newXfs(
  { size = 64 * 2 ** 20, ...options }: MkfsXfsOptions & { size?: number } = {},
): Promise<NvmeDevice> {
  const device = createNvme(new VirtualClock(), { size, preset: "null" });
  await mkfsXfs(device, { seed: 1, ...options });
  return device;
}
