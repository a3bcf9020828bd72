/**
 * What jobs run on: files of a mounted file system, a bare device, or nothing.
 *
 * Jobs see one small interface, {@linkcode IoFile}. A call that can finish at
 * once on the virtual clock has a synchronous form as well, for a job that runs
 * alone: it answers null where it would have to wait for another task.
 *
 * @module
 */

import {
  Bio,
  blkdevIssueFlush,
  blkStatusToErrno,
  type BlockDevice,
  REQ_OP_DISCARD,
  REQ_OP_READ,
  REQ_OP_WRITE,
  submitBio,
} from "../../block/mod.ts";
import {
  type Clock,
  FALLOC_FL_KEEP_SIZE,
  FsError,
  type FsFile,
  type Mount,
} from "../../mod.ts";

const ENOENT = 2;
const EAGAIN = 11;
const ENOTDIR = 20;
const EINVAL = 22;
const ENOTTY = 25;

/** Host time that one I/O call takes on the virtual clock, ns. */
export const HOST_CALL_NS = 300;
/** Host time of the null engine's I/O, ns. */
export const HOST_NULL_NS = 100;
/** Bytes that the host copies to or from the page cache in one ns: 10 GB/s. */
export const HOST_COPY_BYTES_PER_NS = 10;

/** How to open a file. */
export interface IoOpen {
  write: boolean;
  create: boolean;
  direct: boolean;
  sync: "none" | "sync" | "dsync";
}

/** An open file, or the device. Failures are {@linkcode FsError}s. */
export interface IoFile {
  /** Bytes read; 0 at the end. */
  read(buffer: Uint8Array, at: number): Promise<number>;
  /** Bytes written. */
  write(buffer: Uint8Array, at: number): Promise<number>;
  /** {@linkcode read} without waiting for other tasks; null if it would have to. */
  readNow(buffer: Uint8Array, at: number): number | null;
  /** {@linkcode write} without waiting for other tasks; null if it would have to. */
  writeNow(buffer: Uint8Array, at: number): number | null;
  trim(at: number, length: number): Promise<void>;
  sync(): Promise<void>;
  syncData(): Promise<void>;
  syncRange(flags: number): Promise<void>;
  /** Drops what is cached and clean. */
  invalidate(): Promise<void>;
  /** Says in which order I/O will come. */
  advise(order: "random" | "sequential"): Promise<void>;
  close(): Promise<void>;
}

/** What laying out a file asks for. */
export interface Layout {
  size: number;
  fallocate: "none" | "native" | "posix" | "keep" | "truncate";
  /** Write all of it; otherwise it only has to exist. */
  contents: Uint8Array | null;
  sync: boolean;
}

/** Where a run's files are. */
export interface Storage {
  readonly clock: Clock;
  /** The block device's name where there is no file system, else null. */
  readonly deviceName: string | null;
  /** Bytes of the file; null if there is no such file. */
  sizeOf(path: string): Promise<number | null>;
  /** Makes a directory and those above it. */
  makeDirectory(path: string): Promise<void>;
  /**
   * Makes a file and gives it size and contents.
   *
   * @returns Why it could not be preallocated, which is no reason to stop; null
   *   if it could.
   */
  layOut(path: string, layout: Layout): Promise<FsError | null>;
  unlink(path: string): Promise<void>;
  open(path: string, how: IoOpen): Promise<IoFile>;
}

/** Whether an error is an {@linkcode FsError} with this number. */
function hasErrno(error: unknown, errno: number): boolean {
  return error instanceof FsError && error.errno === errno;
}

/** Files of a mounted file system. */
export class FileStorage implements Storage {
  readonly deviceName = null;
  readonly clock: Clock;
  readonly #mount: Mount;

  constructor(mount: Mount, clock: Clock) {
    this.#mount = mount;
    this.clock = clock;
  }

  async sizeOf(path: string): Promise<number | null> {
    try {
      return (await this.#mount.stat(absolute(path))).size;
    } catch (error) {
      if (hasErrno(error, ENOENT) || hasErrno(error, ENOTDIR)) return null;
      throw error;
    }
  }

  async makeDirectory(path: string): Promise<void> {
    let made = "";
    for (const name of absolute(path).split("/").filter((n) => n !== "")) {
      made += "/" + name;
      if (await this.sizeOf(made) === null) await this.#mount.mkdir(made);
    }
    if (!(await this.#mount.stat(absolute(path))).isDirectory) {
      throw new FsError(ENOTDIR, "Not a directory", { path });
    }
  }

  async layOut(path: string, layout: Layout): Promise<FsError | null> {
    using file = await this.#mount.open(absolute(path), {
      write: true,
      create: true,
    });
    const { size, contents } = layout;
    const trouble = size > 0 ? await preallocate(file, layout) : null;
    if (contents === null) return trouble;
    await file.truncate(size);
    for (let at = 0; at < size;) {
      const n = Math.min(contents.length, size - at);
      at += await file.write(contents.subarray(0, n), { at });
    }
    if (layout.sync) await file.sync();
    return trouble;
  }

  async unlink(path: string): Promise<void> {
    await this.#mount.unlink(absolute(path));
  }

  async open(path: string, how: IoOpen): Promise<IoFile> {
    const file = await this.#mount.open(absolute(path), {
      read: true,
      write: how.write,
      create: how.create,
      direct: how.direct,
      sync: how.sync === "sync",
      dsync: how.sync === "dsync",
    });
    return new MountedFile(file);
  }
}

/** Directories of job files are seen from the file system's root. */
function absolute(path: string): string {
  return path.startsWith("/") ? path : "/" + path;
}

/** @returns The failure; null if there is none or the file can do without. */
async function preallocate(
  file: FsFile,
  { fallocate, size }: Layout,
): Promise<FsError | null> {
  if (fallocate === "none") return null;
  try {
    if (fallocate === "truncate") await file.truncate(size);
    else {
      const mode = fallocate === "keep" ? FALLOC_FL_KEEP_SIZE : 0;
      await file.fallocate(mode, 0, size);
    }
    return null;
  } catch (error) {
    if (!(error instanceof FsError)) throw error;
    return fallocate === "native" ? null : error;
  }
}

class MountedFile implements IoFile {
  readonly #file: FsFile;
  // One object for all calls: the file has read it before it returns.
  readonly #options = { at: 0 };

  constructor(file: FsFile) {
    this.#file = file;
  }

  read(buffer: Uint8Array, at: number): Promise<number> {
    this.#options.at = at;
    return this.#file.read(buffer, this.#options).then(orNone);
  }

  write(buffer: Uint8Array, at: number): Promise<number> {
    this.#options.at = at;
    return this.#file.write(buffer, this.#options);
  }

  readNow(buffer: Uint8Array, at: number): number | null {
    this.#options.at = at;
    try {
      return this.#file.readSync(buffer, this.#options) ?? 0;
    } catch (error) {
      return nullIfAgain(error);
    }
  }

  writeNow(buffer: Uint8Array, at: number): number | null {
    this.#options.at = at;
    try {
      return this.#file.writeSync(buffer, this.#options);
    } catch (error) {
      return nullIfAgain(error);
    }
  }

  trim(): Promise<void> {
    return Promise.reject(
      new FsError(ENOTTY, "Cannot trim a regular file", {
        path: this.#file.path,
      }),
    );
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }

  syncData(): Promise<void> {
    return this.#file.syncData();
  }

  syncRange(flags: number): Promise<void> {
    return this.#file.syncRange(0, 0, flags);
  }

  invalidate(): Promise<void> {
    return this.#file.advise("dontneed");
  }

  advise(order: "random" | "sequential"): Promise<void> {
    return this.#file.advise(order);
  }

  async close(): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }
}

function orNone(n: number | null): number {
  return n ?? 0;
}

function nullIfAgain(error: unknown): null {
  if (hasErrno(error, EAGAIN)) return null;
  throw error;
}

/** What the null engine works on: every I/O is done at once. */
export class NullFile implements IoFile {
  read(buffer: Uint8Array, _at: number): Promise<number> {
    return Promise.resolve(buffer.length);
  }
  write(buffer: Uint8Array, _at: number): Promise<number> {
    return Promise.resolve(buffer.length);
  }
  readNow(buffer: Uint8Array): number | null {
    return buffer.length;
  }
  writeNow(buffer: Uint8Array): number | null {
    return buffer.length;
  }
  trim(_at: number, _length: number): Promise<void> {
    return Promise.resolve();
  }
  sync(): Promise<void> {
    return Promise.resolve();
  }
  syncData(): Promise<void> {
    return Promise.resolve();
  }
  syncRange(): Promise<void> {
    return Promise.resolve();
  }
  invalidate(): Promise<void> {
    return Promise.resolve();
  }
  advise(): Promise<void> {
    return Promise.resolve();
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** A device without a file system: the only file is the device itself. */
export class RawStorage implements Storage {
  readonly clock: Clock;
  readonly deviceName: string;
  readonly #device: BlockDevice;

  constructor(device: BlockDevice) {
    this.#device = device;
    this.clock = device.clock;
    this.deviceName = `/dev/${device.name}`;
  }

  sizeOf(): Promise<number | null> {
    return Promise.resolve(this.#device.nrSectors * 512);
  }

  makeDirectory(path: string): Promise<void> {
    return Promise.reject(
      new FsError(ENOTDIR, "There are no directories without a file system", {
        path,
      }),
    );
  }

  layOut(path: string): Promise<FsError | null> {
    return Promise.reject(
      new FsError(ENOENT, "Without a file system the device is the only file", {
        path,
      }),
    );
  }

  unlink(path: string): Promise<void> {
    return this.makeDirectory(path);
  }

  open(_path: string, how: IoOpen): Promise<IoFile> {
    if (!how.direct) {
      return Promise.reject(
        new FsError(
          EINVAL,
          "A bare device has no page cache here, direct=0 cannot be had",
        ),
      );
    }
    return Promise.resolve(new RawFile(this.#device, how.sync !== "none"));
  }
}

class RawFile extends NullFile {
  readonly #device: BlockDevice;
  readonly #durable: boolean;

  constructor(device: BlockDevice, durable: boolean) {
    super();
    this.#device = device;
    this.#durable = durable;
  }

  override read(buffer: Uint8Array, at: number): Promise<number> {
    return this.#transfer(REQ_OP_READ, at, buffer.length, buffer);
  }

  override async write(buffer: Uint8Array, at: number): Promise<number> {
    const n = await this.#transfer(REQ_OP_WRITE, at, buffer.length, buffer);
    if (this.#durable) await this.sync();
    return n;
  }

  override readNow(): null {
    return null;
  }

  override writeNow(): null {
    return null;
  }

  override async trim(at: number, length: number): Promise<void> {
    await this.#transfer(REQ_OP_DISCARD, at, length, null);
  }

  override async sync(): Promise<void> {
    const error = await blkdevIssueFlush(this.#device);
    if (error < 0) throw new FsError(error, "Cannot flush the device");
  }

  override syncData(): Promise<void> {
    return this.sync();
  }

  #transfer(
    op: number,
    at: number,
    length: number,
    buffer: Uint8Array | null,
  ): Promise<number> {
    const unit = this.#device.limits.logicalBlockSize;
    if (at % unit !== 0 || length % unit !== 0) {
      return Promise.reject(
        new FsError(
          EINVAL,
          `Offset ${at} or length ${length} is not a multiple of ${unit}`,
        ),
      );
    }
    return new Promise((resolve, reject) => {
      const bio = new Bio(this.#device, op);
      bio.sector = at / 512;
      if (buffer === null) bio.size = length;
      else bio.addData(buffer, 0, length);
      bio.endIo = (done) => {
        const error = blkStatusToErrno(done.status);
        if (error === 0) resolve(length);
        else reject(new FsError(error, `Cannot move ${length} bytes at ${at}`));
      };
      submitBio(bio);
    });
  }
}
