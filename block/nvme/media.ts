/**
 * Where a device's blocks are kept: in memory, or in a file of the host.
 *
 * Both are sparse. What was never written reads as zeroes and takes no room.
 *
 * @module
 */

import {
  bitmapClear,
  bitmapSet,
  bitmapWords,
  clearBit,
  findNextBit,
} from "../../lib/bitmap.ts";
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
   * Whether nothing has been written to it, ever. Media does not keep the state of
   * zones, so a device that begins with empty ones takes only what is blank; absent if
   * that need not be asked.
   */
  readonly blank?: boolean;
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
  /**
   * What it holds now, as media of its own: writes to either are not seen in the other.
   * Media that cannot be forked has no such method.
   */
  fork?(): Media;
  /** Gives up what it holds of the host. Nothing else is called afterwards. */
  close(): void;
}

/** Bytes that are allocated, and copied for a fork, together. */
const CHUNK = 65536;
/** Chunks of one table: 1 GiB, so that no size makes too many tables. */
const TABLE = 16384;

/** Whose memory may be changed: media that was forked, and the fork, own nothing at first. */
class Owner {}

/** Bytes of the media. */
class Chunk {
  readonly owner: Owner;
  readonly data: Uint8Array;

  constructor(owner: Owner, data: Uint8Array) {
    this.owner = owner;
    this.data = data;
  }
}

/** Chunks that lie together. */
class Table {
  readonly owner: Owner;
  // Dense: an array with holes is slow to look up.
  readonly chunks: (Chunk | null)[];

  constructor(owner: Owner, chunks: (Chunk | null)[]) {
    this.owner = owner;
    this.chunks = chunks;
  }
}

/** In front of other media: zeroes that hide what that has. */
const HOLE = new Chunk(new Owner(), new Uint8Array(0));

/** What media in memory reads that holds only what differs from other media. */
interface Below {
  /** As {@linkcode Media.read}. */
  read(at: number, data: Uint8Array, offset: number, len: number): number;
  /** Somebody else reads it from now on, or does no more. */
  forked(top: MemoryMedia, on: boolean): void;
}

/** Storage in memory, gone with the process. */
export class MemoryMedia implements Media {
  /** Bytes. */
  readonly size: number;
  // Two levels: a large device that is hardly written must cost next to nothing.
  #tables: (Table | null)[];
  #owner = new Owner();
  #below: Below | null = null;

  /**
   * Storage of zeroes.
   *
   * @param size Bytes, a safe integer above 0.
   * @throws {FsError} EINVAL if it is not.
   */
  constructor(size: number) {
    checkSize(size);
    this.size = size;
    this.#tables = new Array(Math.ceil(size / (CHUNK * TABLE))).fill(null);
  }

  /** Memory in front of other media; used by that for its forks. */
  static over(below: Below, size: number): MemoryMedia {
    const media = new MemoryMedia(size);
    media.#below = below;
    below.forked(media, true);
    return media;
  }

  /** Whether nothing has been written to it, ever. */
  get blank(): boolean {
    return this.#below === null &&
      this.#tables.every((table) => table === null);
  }

  /** Bytes allocated, those included that forks share. */
  get allocated(): number {
    let bytes = 0;
    for (const table of this.#tables) {
      for (const chunk of table?.chunks ?? []) bytes += chunk?.data.length ?? 0;
    }
    return bytes;
  }

  read(at: number, data: Uint8Array, offset: number, len: number): number {
    let pos = at;
    let to = offset;
    const end = at + len;
    while (pos < end) {
      const from = pos & (CHUNK - 1);
      const n = Math.min(end - pos, CHUNK - from);
      const chunk = this.#find(Math.floor(pos / CHUNK));
      if (chunk !== null && chunk !== HOLE) {
        data.set(chunk.data.subarray(from, from + n), to);
      } else if (chunk === HOLE || this.#below === null) {
        data.fill(0, to, to + n);
      } else if (this.#below.read(pos, data, to, n) !== 0) return -EIO;
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
      const chunk = this.#own(Math.floor(pos / CHUNK), n < CHUNK);
      if (chunk === null) return -EIO;
      chunk.data.set(data.subarray(from, from + n), to);
      pos += n;
      from += n;
    }
    return 0;
  }

  zero(at: number, len: number): number {
    const end = at + len;
    for (let pos = at; pos < end;) {
      const from = pos & (CHUNK - 1);
      const index = Math.floor(pos / CHUNK);
      const table = this.#tables[Math.floor(index / TABLE)]!;
      if (table === null && this.#below === null) {
        // Nothing of the whole table has ever been written.
        pos = (Math.floor(index / TABLE) + 1) * TABLE * CHUNK;
        continue;
      }
      const n = Math.min(end - pos, CHUNK - from);
      if (this.#zeroChunk(index, from, n) !== 0) return -EIO;
      pos += n;
    }
    return 0;
  }

  fork(): MemoryMedia {
    const copy = new MemoryMedia(this.size);
    copy.#tables = this.#tables.slice();
    copy.#below = this.#below;
    copy.#below?.forked(copy, true);
    this.#owner = new Owner();
    return copy;
  }

  /** Copies a range from below to here, which is about to change there. */
  preserve(at: number, len: number): void {
    const last = Math.floor((at + len - 1) / CHUNK);
    for (let i = Math.floor(at / CHUNK); i <= last; i++) {
      if (this.#find(i) === null) this.#own(i, true);
    }
  }

  close(): void {
    this.#below?.forked(this, false);
    this.#tables.fill(null);
  }

  #find(index: number): Chunk | null {
    const table = this.#tables[Math.floor(index / TABLE)]!;
    return table === null ? null : table.chunks[index % TABLE] ?? null;
  }

  /** A chunk that may be changed; null if it cannot be read from below.
   * @param isPart Whether some of what it holds stays. */
  #own(index: number, isPart: boolean): Chunk | null {
    const chunks = this.#ownTable(Math.floor(index / TABLE));
    const slot = index % TABLE;
    const old = chunks[slot] ?? null;
    if (old !== null && old.owner === this.#owner) return old;
    const chunk = new Chunk(this.#owner, new Uint8Array(CHUNK));
    if (isPart && old !== null) chunk.data.set(old.data);
    else if (isPart && this.#below !== null) {
      const at = index * CHUNK;
      const n = Math.min(CHUNK, this.size - at);
      if (this.#below.read(at, chunk.data, 0, n) !== 0) return null;
    }
    while (chunks.length <= slot) chunks.push(null);
    chunks[slot] = chunk;
    return chunk;
  }

  #ownTable(index: number): (Chunk | null)[] {
    const table = this.#tables[index]!;
    if (table !== null && table.owner === this.#owner) return table.chunks;
    const own = new Table(this.#owner, table?.chunks.slice() ?? []);
    this.#tables[index] = own;
    return own.chunks;
  }

  #zeroChunk(index: number, from: number, n: number): number {
    const old = this.#find(index);
    if (old === HOLE || (old === null && this.#below === null)) return 0;
    const isWhole = n === CHUNK || index * CHUNK + n === this.size;
    if (isWhole && from === 0) {
      const chunks = this.#ownTable(Math.floor(index / TABLE));
      while (chunks.length <= index % TABLE) chunks.push(null);
      chunks[index % TABLE] = this.#below === null ? null : HOLE;
      return 0;
    }
    const chunk = this.#own(index, true);
    chunk?.data.fill(0, from, from + n);
    return chunk === null ? -EIO : 0;
  }
}

/** How {@linkcode FileMedia.open} opens an image. */
export interface FileMediaOptions {
  /** Bytes. A new file needs it; of an old one it must be the size. */
  size?: number;
  /** Whether to make the file if there is none; true if absent. */
  create?: boolean;
}

/**
 * Storage in a file of the host: a raw image, as a loop device would use it.
 *
 * The file stays sparse where zeroes are written over zeroes, and where the end of
 * it is zeroed. Deno cannot punch holes: elsewhere zeroes take the room that the
 * data had.
 */
export class FileMedia implements Media {
  /** Bytes. */
  readonly size: number;
  /** Whether the image has been made just now, and nothing has been written to it. */
  get blank(): boolean {
    return this.#blank;
  }
  #blank: boolean;
  readonly #file: Deno.FsFile;
  readonly #buffer = new Uint8Array(CHUNK);
  readonly #zeroes = new Uint8Array(CHUNK);
  /** Chunks that may hold something else than zeroes, a bit each. */
  readonly #touched: Uint32Array;
  /** Forks that read from here what they do not have. */
  readonly #forks = new Set<MemoryMedia>();

  private constructor(file: Deno.FsFile, size: number, isNew: boolean) {
    this.#file = file;
    this.size = size;
    this.#blank = isNew;
    const chunks = Math.ceil(size / CHUNK);
    this.#touched = new Uint32Array(bitmapWords(chunks));
    if (!isNew) bitmapSet(this.#touched, 0, chunks);
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
      const isNew = file.statSync().size === 0;
      return new FileMedia(file, sizeImage(file, path, size), isNew);
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
    this.#blank = false;
    this.#preserve(at, len);
    const first = Math.floor(at / CHUNK);
    const count = Math.floor((at + len - 1) / CHUNK) - first + 1;
    bitmapSet(this.#touched, first, count);
    return this.#write(at, data, offset, len);
  }

  zero(at: number, len: number): number {
    this.#preserve(at, len);
    const end = at + len;
    if (end === this.size) return this.#zeroEnd(at);
    const chunks = Math.ceil(this.size / CHUNK);
    for (let pos = at; pos < end;) {
      const index = findNextBit(
        this.#touched,
        chunks,
        Math.floor(pos / CHUNK),
      );
      pos = Math.max(pos, index * CHUNK);
      if (pos >= end) break;
      const stop = Math.min(end, (index + 1) * CHUNK);
      if (this.#zeroPart(pos, stop - pos) !== 0) return -EIO;
      if (stop - pos === CHUNK) clearBit(this.#touched, index);
      pos = stop;
    }
    return 0;
  }

  /**
   * What it holds now, with changes in memory. It reads from this image, which has
   * to stay open until the fork is closed, and must not be changed by others.
   */
  fork(): MemoryMedia {
    return MemoryMedia.over(this, this.size);
  }

  /** Notes who reads from here; used by forks. */
  forked(top: MemoryMedia, on: boolean): void {
    if (on) this.#forks.add(top);
    else this.#forks.delete(top);
  }

  close(): void {
    this.#file.close();
  }

  #preserve(at: number, len: number): void {
    for (const top of this.#forks) top.preserve(at, len);
  }

  #write(at: number, data: Uint8Array, offset: number, len: number): number {
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

  /** Zeroes all behind an offset: what is cut off and added again is a hole. */
  #zeroEnd(at: number): number {
    try {
      this.#file.truncateSync(at);
      this.#file.truncateSync(this.size);
      const first = Math.ceil(at / CHUNK);
      bitmapClear(this.#touched, first, Math.ceil(this.size / CHUNK) - first);
      return 0;
    } catch {
      return -EIO;
    }
  }

  /** Zeroes a part of a chunk, unless it is zeroes already: a hole stays one. */
  #zeroPart(at: number, len: number): number {
    if (this.read(at, this.#buffer, 0, len) !== 0) return -EIO;
    let i = 0;
    while (i < len && this.#buffer[i] === 0) i++;
    return i === len ? 0 : this.#write(at, this.#zeroes, 0, len);
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
