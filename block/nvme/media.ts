/**
 * Where a device's blocks are kept: in memory, or in a file of the host.
 *
 * Both are sparse. What was never written reads as zeroes and takes no room.
 *
 * @module
 */

import {
  EINVAL,
  EIO,
  ENOENT,
  ERRNO,
  type ErrnoName,
  FsError,
  show,
} from "../../lib/errno.ts";

/** Stable storage of a fixed size. The device sees to it that ranges lie within. */
export interface Media {
  /** Bytes. */
  readonly size: number;
  /**
   * Copies `[at, at + len)` to `data` at `offset`.
   *
   * @returns 0 or -EIO.
   */
  read(at: number, data: Uint8Array, offset: number, len: number): number;
  /**
   * Stores `len` bytes of `data` from `offset` on at `at`.
   *
   * @returns 0 or -EIO.
   */
  write(at: number, data: Uint8Array, offset: number, len: number): number;
  /**
   * Makes `[at, at + len)` read as zeroes.
   *
   * @returns 0 or -EIO.
   */
  zero(at: number, len: number): number;
  /** Gives up what it holds of the host. Nothing else is called afterwards. */
  close(): void;
}

/** Bytes that are allocated together. */
const CHUNK = 2 * 2 ** 20;
/** Chunks of one table. */
const TABLE = 1024;

/** Storage in memory, gone with the process. */
export class MemoryMedia implements Media {
  /** Bytes. */
  readonly size: number;
  // Two levels: a large device that is hardly written must cost next to nothing.
  readonly #tables: (Uint8Array | undefined)[][];

  /**
   * Storage of zeroes.
   *
   * @param size Bytes, a safe integer above 0.
   * @throws {FsError} EINVAL if it is not.
   */
  constructor(size: number) {
    checkSize(size);
    this.size = size;
    this.#tables = Array.from(
      { length: Math.ceil(size / (CHUNK * TABLE)) },
      () => [],
    );
  }

  /** Bytes allocated. */
  get allocated(): number {
    let chunks = 0;
    for (const table of this.#tables) {
      for (const chunk of table) if (chunk !== undefined) chunks++;
    }
    return chunks * CHUNK;
  }

  read(at: number, data: Uint8Array, offset: number, len: number): number {
    let pos = at;
    let to = offset;
    const end = at + len;
    while (pos < end) {
      const index = Math.floor(pos / CHUNK);
      const from = pos & (CHUNK - 1);
      const n = Math.min(end - pos, CHUNK - from);
      const chunk = this.#tables[Math.floor(index / TABLE)]![index % TABLE];
      if (chunk === undefined) data.fill(0, to, to + n);
      else data.set(chunk.subarray(from, from + n), to);
      pos += n;
      to += n;
    }
    return 0;
  }

  write(at: number, data: Uint8Array, offset: number, len: number): number {
    let pos = at;
    let from = offset;
    const end = at + len;
    while (pos < end) {
      const to = pos & (CHUNK - 1);
      const n = Math.min(end - pos, CHUNK - to);
      this.#chunk(Math.floor(pos / CHUNK)).set(
        data.subarray(from, from + n),
        to,
      );
      pos += n;
      from += n;
    }
    return 0;
  }

  zero(at: number, len: number): number {
    const end = at + len;
    for (let pos = at; pos < end;) {
      const from = pos & (CHUNK - 1);
      const n = Math.min(end - pos, CHUNK - from);
      const index = Math.floor(pos / CHUNK);
      const table = this.#tables[Math.floor(index / TABLE)]!;
      if (n === CHUNK) table[index % TABLE] = undefined;
      else table[index % TABLE]?.fill(0, from, from + n);
      pos += n;
    }
    return 0;
  }

  close(): void {
    this.#tables.fill([]);
  }

  #chunk(index: number): Uint8Array {
    const table = this.#tables[Math.floor(index / TABLE)]!;
    // Tables are dense: an array with holes is slow to look up.
    while (table.length <= index % TABLE) table.push(undefined);
    return table[index % TABLE] ??= new Uint8Array(CHUNK);
  }
}

/** How {@linkcode FileMedia.open} opens an image. */
export interface FileMediaOptions {
  /** Bytes. A new file needs it; of an old one it must be the size. */
  size?: number;
  /** Whether to make the file if there is none; true if absent. */
  create?: boolean;
}

/** Storage in a file of the host: a raw image, as a loop device would use it. */
export class FileMedia implements Media {
  /** Bytes. */
  readonly size: number;
  readonly #file: Deno.FsFile;
  readonly #zeroes = new Uint8Array(65536);

  private constructor(file: Deno.FsFile, size: number) {
    this.#file = file;
    this.size = size;
  }

  /**
   * Opens an image, or makes one: sparse, all zeroes.
   *
   * @throws {FsError} EINVAL if the size cannot be, or is not that of the image;
   *   ENOENT if there is no image and `create` is false or no size is given, or
   *   its folder does not exist; EACCES, EISDIR, EFBIG and the like as the host
   *   says.
   */
  static open(path: string, options: FileMediaOptions = {}): FileMedia {
    if (typeof path !== "string") {
      throw new FsError(EINVAL, `Image path ${show(path)} is not a string`);
    }
    if (path === "") throw new FsError(ENOENT, 'Cannot open image ""');
    checkOptions(path, options);
    const { size, create = true } = options;
    const [file, made] = openImage(path, create && size !== undefined);
    try {
      return new FileMedia(file, sizeImage(file, path, size));
    } catch (e) {
      file.close();
      if (made) Deno.removeSync(path);
      throw e;
    }
  }

  read(at: number, data: Uint8Array, offset: number, len: number): number {
    try {
      this.#file.seekSync(at, Deno.SeekMode.Start);
      for (let done = 0; done < len;) {
        const rest = data.subarray(offset + done, offset + len);
        const n = this.#file.readSync(rest);
        // Somebody has cut the image short.
        if (n === null) return -EIO;
        done += n;
      }
      return 0;
    } catch {
      return -EIO;
    }
  }

  write(at: number, data: Uint8Array, offset: number, len: number): number {
    try {
      this.#file.seekSync(at, Deno.SeekMode.Start);
      for (let done = 0; done < len;) {
        done += this.#file.writeSync(
          data.subarray(offset + done, offset + len),
        );
      }
      return 0;
    } catch {
      return -EIO;
    }
  }

  zero(at: number, len: number): number {
    for (let done = 0; done < len; done += this.#zeroes.length) {
      const n = Math.min(this.#zeroes.length, len - done);
      if (this.write(at + done, this.#zeroes, 0, n) !== 0) return -EIO;
    }
    return 0;
  }

  close(): void {
    this.#file.close();
  }
}

function checkSize(size: number): void {
  if (Number.isSafeInteger(size) && size > 0) return;
  throw new FsError(EINVAL, `size ${show(size)} is not a number of bytes`);
}

const OPTIONS = ["size", "create"];

function checkOptions(path: string, options: FileMediaOptions): void {
  const fail = (what: string) =>
    new FsError(EINVAL, `Cannot open image "${path}": ${what}`, { path });
  if (typeof options !== "object" || options === null) {
    throw fail(`options are ${show(options)}, not an object`);
  }
  for (const name in options) {
    if (!OPTIONS.includes(name)) throw fail(`there is no option "${name}"`);
  }
  const { size, create = true } = options;
  if (size !== undefined) checkSize(size);
  if (typeof create !== "boolean") {
    throw fail(`option create is ${show(create)}, not a boolean`);
  }
}

/** Asks the host; what it refuses is told as Linux does. */
function onHost<T>(task: string, path: string, work: () => T): T {
  try {
    return work();
  } catch (e) {
    const { code, message } = e as { code?: ErrnoName; message: string };
    // Deno does not know all codes by name.
    const errno = (code && ERRNO[code]) ??
      Number(/\(os error (\d+)\)/.exec(message)?.[1]);
    // A permission that Deno was not given is for Deno to tell.
    if (Number.isNaN(errno)) throw e;
    throw new FsError(errno, `Cannot ${task} image "${path}"`, {
      syscall: "open",
      path,
    });
  }
}

/** Opens an image.
 * @returns The file, and whether it has been made. */
function openImage(path: string, create: boolean): [Deno.FsFile, boolean] {
  const open = (createNew: boolean) =>
    onHost(
      "open",
      path,
      () => Deno.openSync(path, { read: true, write: true, createNew }),
    );
  try {
    if (create) return [open(true), true];
  } catch (e) {
    if (!(e instanceof FsError && e.code === "EEXIST")) throw e;
  }
  return [open(false), false];
}

/** Gives a new image its size; checks that of an old one. */
function sizeImage(
  file: Deno.FsFile,
  path: string,
  size: number | undefined,
): number {
  const have = file.statSync().size;
  if (have === 0 && size !== undefined) {
    onHost(`give ${size} bytes to`, path, () => file.truncateSync(size));
    return size;
  }
  if (have === 0 || (size !== undefined && size !== have)) {
    const wanted = size === undefined ? "no size was given" : `not ${size}`;
    throw new FsError(EINVAL, `Image "${path}" has ${have} bytes, ${wanted}`, {
      path,
    });
  }
  return have;
}
