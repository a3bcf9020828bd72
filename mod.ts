/**
 * Linux's iomap I/O stack in one process: simulated disks, and files on them.
 *
 * Everything goes by a clock. On a `VirtualClock` time moves only when nothing else
 * can run: the same program with the same seed does the same, to the byte.
 *
 * ```ts
 * import { createNvme, mkfsXfs, mount, VirtualClock, xfs } from "@iomap/iomap";
 *
 * const clock = new VirtualClock();
 * const device = createNvme(clock, { size: 512 * 2 ** 20, preset: "optane" });
 * await mkfsXfs(device);
 * {
 *   await using fs = await mount(device, xfs);
 *   using file = await fs.open("/hello", { write: true, create: true });
 *   await file.write(new TextEncoder().encode("hello"), { at: 4096 });
 *   await file.sync();
 *   console.log(`durable after ${clock.now()} ns of simulated time`);
 * }
 * device.close();
 * ```
 *
 * @module
 */

export {
  type BackingDevInfo,
  BlockDevice,
  type QueueLimits,
} from "./block/blkdev.ts";
export {
  type CompletionQueue,
  createNvme,
  type CutFragment,
  type CutKeep,
  type CutOptions,
  type CutReport,
  cutStates,
  type CutStatesOptions,
  type DieParams,
  type DiskParams,
  type FastRegion,
  type Fault,
  type FaultOp,
  type FaultPlan,
  type FaultSectors,
  type FaultWhen,
  FileMedia,
  type FileMediaOptions,
  type FlashMode,
  type FlashParams,
  type HostMemory,
  type JitterTable,
  type Media,
  MemoryMedia,
  NVME_PRESETS,
  type NvmeAtomics,
  type NvmeController,
  NvmeDevice,
  type NvmeOptions,
  type NvmePassthru,
  type NvmePreset,
  type NvmePresetName,
  type NvmeResult,
  type NvmeZonedOptions,
  type PmemParams,
  type PresetZones,
  type SeekCurve,
  type SubmissionQueue,
  type TearMode,
  type TimingParams,
  type TransientStatus,
  type XpointParams,
  type ZnsParams,
  type ZoneFlavor,
  type ZoneTimes,
} from "./block/nvme/mod.ts";
export type { Advice } from "./fs/fadvise.ts";
export {
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_WRITE_ZEROES,
  FALLOC_FL_ZERO_RANGE,
  type FiemapExtent,
  type FileSystemType,
  type MountError,
  SEEK_CUR,
  SEEK_DATA,
  SEEK_END,
  SEEK_HOLE,
  SEEK_SET,
  type StatFs,
  type SuperBlock,
} from "./fs/fs.ts";
export {
  type FiemapOptions,
  FsFile,
  type RangeOptions,
  type ReadOptions,
  type WriteOptions,
} from "./fs/fs-file.ts";
export {
  FIEMAP_EXTENT_DATA_ENCRYPTED,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DATA_TAIL,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_ENCODED,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_MERGED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
} from "./fs/ioctl.ts";
export {
  type DirEntry,
  type MkdirOptions,
  Mount,
  mount,
  type MountOptions,
  type OpenOptions,
  type RenameOptions,
  type SetXattrOptions,
} from "./fs/mount.ts";
export {
  MemoryFault,
  type MemoryMapping,
  type MmapAdvice,
  type MmapOptions,
  type MsyncOptions,
} from "./fs/mmap.ts";
export type { FileInfo } from "./fs/stat.ts";
export type { CacheStat } from "./mm/filemap.ts";
export { type SwapFile, swapHeader } from "./fs/swap.ts";
export {
  SYNC_FILE_RANGE_WAIT_AFTER,
  SYNC_FILE_RANGE_WAIT_BEFORE,
  SYNC_FILE_RANGE_WRITE,
} from "./fs/sync.ts";
export {
  type FsckOptions,
  type FsckReader,
  type FsckReport,
  fsckXfs,
} from "./fs/xfs/fsck/fsck.ts";
export {
  mkfsXfs,
  type MkfsXfsOptions,
  type XfsGeometry,
} from "./fs/xfs/mkfs.ts";
export { xfs } from "./fs/xfs/super.ts";
export {
  type Clock,
  type EventClock,
  type EventId,
  Lateness,
  QUIET,
  RealClock,
  VirtualClock,
} from "./lib/clock.ts";
export {
  type ErrnoName,
  errnoName,
  FsError,
  type FsErrorContext,
  strerror,
} from "./lib/errno.ts";
export { Histogram } from "./lib/histogram.ts";
