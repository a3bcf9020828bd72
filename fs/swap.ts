/**
 * Swap files: switching them on and off, and their header.
 *
 * Kernel counterpart: mm/swapfile.c (`sys_swapon`, `sys_swapoff`), mm/page_io.c,
 * include/linux/swap.h (`union swap_header`).
 *
 * @module
 */

import { Bio, submitBioWait } from "../block/bio.ts";
import {
  REQ_OP_READ,
  REQ_OP_WRITE,
  REQ_SWAP,
  SECTOR_SIZE,
} from "../block/blk-types.ts";
import type { BlockDevice } from "../block/blkdev.ts";
import { EBUSY, EINVAL, EIO, EPERM, FsError, show } from "../lib/errno.ts";
import { IovIter } from "../lib/iov-iter.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import { printk } from "../lib/printk.ts";
import { filemapRead, filemapWriteAndWaitRange } from "../mm/filemap.ts";
import { type Folio, PAGE_SIZE } from "../mm/folio.ts";
import { MAX_SWAP_PAGES, SwapInfo, type SwapIo } from "../mm/swap.ts";
import { type File, MAX_LFS_FILESIZE, S_SWAPFILE } from "./fs.ts";
import { inodeDioWait, inodeLock, inodeUnlock, isReg } from "./inode.ts";
import { Kiocb } from "./kiocb.ts";

/** Ends the header page. */
const MAGIC = "SWAPSPACE2";
/** Where version, last page and number of bad pages are, bytes. */
const INFO = 1024;

/**
 * The first page of a swap file: write it to the start of the file, as mkswap(8) does
 * (kernel: `union swap_header`).
 *
 * @param pages Pages of the file, itself among them; from 2 on.
 * @throws FsError EINVAL if that is no number of pages.
 */
export function swapHeader(pages: number): Uint8Array<ArrayBuffer> {
  if (!(Number.isInteger(pages) && pages >= 2 && pages <= 2 ** 32)) {
    const what = `Cannot make a swap header of ${show(pages)} pages`;
    throw new FsError(EINVAL, what);
  }
  const page = new Uint8Array(PAGE_SIZE);
  const view = new DataView(page.buffer);
  view.setUint32(INFO, 1, true);
  view.setUint32(INFO + 4, pages - 1, true);
  page.set(new TextEncoder().encode(MAGIC), PAGE_SIZE - MAGIC.length);
  return page;
}

/** A swap file in use. */
export interface SwapFile {
  /** As given to swapon. */
  readonly path: string;
  /** Pages that can be swapped to. */
  readonly pages: number;
  /** Extents on the device. */
  readonly extents: number;
  /** Pages in use. */
  readonly used: number;
}

/** What is kept of it. @internal */
export class ActiveSwapFile implements SwapFile {
  /** Held open. */
  readonly file: File;
  /** Its slots. */
  readonly sis: SwapInfo;

  /** A file that has just been activated. */
  constructor(file: File, sis: SwapInfo) {
    this.file = file;
    this.sis = sis;
  }

  /** See {@linkcode SwapFile.path}. */
  get path(): string {
    return this.file.path;
  }

  /** See {@linkcode SwapFile.pages}. */
  get pages(): number {
    return this.sis.pages;
  }

  /** See {@linkcode SwapFile.extents}. */
  get extents(): number {
    return this.sis.extents.length;
  }

  /** See {@linkcode SwapFile.used}. */
  get used(): number {
    return this.sis.inuse;
  }
}

/** Pages to and from a device, past the file system (kernel: `swap_writepage_bdev_sync`,
 * `swap_read_folio_bdev_sync`). */
class BdevSwapIo implements SwapIo {
  readonly #bdev: BlockDevice;

  constructor(bdev: BlockDevice) {
    this.#bdev = bdev;
  }

  read(folio: Folio, block: number): MaybePromise<number> {
    return this.#submit(REQ_OP_READ, folio, block);
  }

  write(folio: Folio, block: number): MaybePromise<number> {
    return andThen(this.#submit(REQ_OP_WRITE, folio, block), (error) => {
      if (error < 0) {
        const { major, minor } = this.#bdev.dev;
        const sector = block * (PAGE_SIZE / SECTOR_SIZE);
        printk(`Write-error on swap-device (${major}:${minor}:${sector})`);
      }
      return error;
    });
  }

  #submit(op: number, folio: Folio, block: number): MaybePromise<number> {
    const bio = new Bio(this.#bdev, op | REQ_SWAP);
    bio.sector = block * (PAGE_SIZE / SECTOR_SIZE);
    bio.addData(folio.data, folio.offset, PAGE_SIZE);
    return submitBioWait(bio);
  }
}

/**
 * Takes a file into use as swap space of its file system's memory (kernel:
 * `sys_swapon`).
 *
 * @param file Open for reading and writing; stays open on success.
 * @returns What is in use now; -EBUSY if it is already; -EINVAL if it is no regular
 *   file with a swap header, or its blocks cannot be swapped to: the log says why;
 *   -EPERM if there are too many; -EIO; the errno of writing its data back.
 */
export function vfsSwapon(file: File): MaybePromise<ActiveSwapFile | number> {
  const { inode } = file;
  if (!isReg(inode)) return -EINVAL;
  return andThen(inodeLock(inode, true), (refused) => {
    if (refused < 0) return refused;
    return andThen(swaponLocked(file), (result) => {
      inodeUnlock(inode, true);
      return result;
    });
  });
}

function swaponLocked(file: File): MaybePromise<ActiveSwapFile | number> {
  const { inode } = file;
  if ((inode.flags & S_SWAPFILE) !== 0) return -EBUSY;
  if (inode.mapping.minOrder > 0) return -EINVAL;
  if (inode.fop.swapActivate === undefined) return -EINVAL;
  return andThen(readSwapHeader(file), (max) => {
    if (max < 0) return max;
    const { bdev } = inode.sb;
    const sis = new SwapInfo(bdev, new BdevSwapIo(bdev), max);
    sis.pages = max - 1;
    const activated = inode.fop.swapActivate!(sis, file, { value: 0 });
    return andThen(activated, (extents) => {
      if (extents < 0) return extents;
      return andThen(drainWrites(file), (error) => {
        if (error === 0 && !inode.sb.mm.swap.add(sis)) error = -EPERM;
        if (error === 0) return new ActiveSwapFile(file, sis);
        inode.flags &= ~S_SWAPFILE;
        inode.fop.swapDeactivate?.(file);
        return error;
      });
    });
  });
}

/** From now on nobody writes to the file; what has been is on the device (kernel:
 * `inode_drain_writes`). */
function drainWrites({ inode }: File): MaybePromise<number> {
  inode.flags |= S_SWAPFILE;
  return andThen(
    inodeDioWait(inode),
    () => filemapWriteAndWaitRange(inode.mapping, 0, MAX_LFS_FILESIZE),
  );
}

/** Slots that the header promises, its own among them, or a negative errno (kernel:
 * `read_swap_header`). */
function readSwapHeader(file: File): MaybePromise<number> {
  const page = new Uint8Array(PAGE_SIZE);
  const read = filemapRead(new Kiocb(file), new IovIter(page));
  return andThen(read, (n) => n < 0 ? -EIO : parseSwapHeader(file, page));
}

function parseSwapHeader(file: File, page: Uint8Array): number {
  const refuse = (message: string) => {
    printk(message);
    return -EINVAL;
  };
  const magic = page.subarray(PAGE_SIZE - MAGIC.length);
  if (new TextDecoder().decode(magic) !== MAGIC) {
    return refuse("Unable to find swap-space signature");
  }
  const view = new DataView(page.buffer);
  const version = view.getUint32(INFO, true);
  if (version !== 1) {
    return refuse(`Unable to handle swap header version ${version}`);
  }
  const lastPage = view.getUint32(INFO + 4, true);
  if (lastPage === 0) return refuse("Empty swap-file");
  let max = lastPage + 1;
  if (max > MAX_SWAP_PAGES) {
    const kept = `${4 * MAX_SWAP_PAGES}k out of ${4 * lastPage}k`;
    printk(`Truncating oversized swap area, only using ${kept}`);
    max = MAX_SWAP_PAGES;
  }
  if (max > Math.floor(file.inode.size / PAGE_SIZE)) {
    return refuse("Swap area shorter than signature indicates");
  }
  // Bad pages are a device's, not a file's.
  return view.getUint32(INFO + 8, true) > 0 ? -EINVAL : max;
}

/**
 * Takes a swap file out of use: what is there is read back (kernel: `sys_swapoff`).
 *
 * @returns 0, or -ENOMEM if there is no room for it: then it stays in use. Closing
 *   the file is the caller's.
 */
export function vfsSwapoff(
  { file, sis }: ActiveSwapFile,
): MaybePromise<number> {
  const { inode } = file;
  return andThen(inode.sb.mm.swap.remove(sis), (error) => {
    if (error < 0) return error;
    inode.fop.swapDeactivate?.(file);
    inode.flags &= ~S_SWAPFILE;
    return 0;
  });
}
