/**
 * The system calls that Deno has no names for, called in the C library.
 *
 * @module
 */

/** Of `open`. */
export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_NOFOLLOW = 0o400000;
/** Types of `mknod`. */
export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
/** Modes of `fallocate`. */
export const FALLOC_KEEP_SIZE = 1;
export const FALLOC_PUNCH_HOLE = 2;
export const FALLOC_COLLAPSE_RANGE = 8;
export const FALLOC_ZERO_RANGE = 16;
export const FALLOC_INSERT_RANGE = 32;
export const FALLOC_UNSHARE_RANGE = 64;
/** Flags of a file's hints. */
export const XFLAG_EXTSIZE = 0x800;
export const XFLAG_EXTSZINHERIT = 0x1000;
export const XFLAG_COWEXTSIZE = 0x10000;

const SEEK_DATA = 3;
const FICLONERANGE = 0x4020940d;
const GOINGDOWN = 0x8004587d;
const FSGETXATTR = 0x801c581f;
const FSSETXATTR = 0x401c5820;

type Ffi = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

const SYMBOLS = {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64" },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i64" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  mknod: { parameters: ["buffer", "u32", "u64"], result: "i32" },
  lsetxattr: {
    parameters: ["buffer", "buffer", "buffer", "usize", "i32"],
    result: "i32",
  },
  lgetxattr: {
    parameters: ["buffer", "buffer", "buffer", "usize"],
    result: "i64",
  },
  llistxattr: { parameters: ["buffer", "buffer", "usize"], result: "i64" },
  lremovexattr: { parameters: ["buffer", "buffer"], result: "i32" },
} as const;

/** A string as C has it. */
function c(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}

/** The C library. Calls answer as in C: -1 if they fail. */
export class Libc {
  readonly #lib: Deno.DynamicLibrary<typeof SYMBOLS>;
  readonly #c: Ffi;

  constructor() {
    this.#lib = Deno.dlopen("libc.so.6", SYMBOLS);
    this.#c = this.#lib.symbols;
  }

  /** Gives the library up. */
  dispose(): void {
    this.#lib.close();
  }

  open(path: string, flags: number): number {
    return this.#c.open(c(path), flags, 0o644);
  }
  close(fd: number): void {
    this.#c.close(fd);
  }
  pwrite(fd: number, data: Uint8Array<ArrayBuffer>, at: number): number {
    const n = this.#c.pwrite(fd, data, BigInt(data.length), BigInt(at));
    return Number(n);
  }
  pread(fd: number, data: Uint8Array<ArrayBuffer>, at: number): number {
    return Number(this.#c.pread(fd, data, BigInt(data.length), BigInt(at)));
  }
  /** Offset of the next data. */
  seekData(fd: number, at: number): number {
    return Number(this.#c.lseek(fd, BigInt(at), SEEK_DATA));
  }
  ftruncate(fd: number, size: number): number {
    return this.#c.ftruncate(fd, BigInt(size));
  }
  fallocate(fd: number, mode: number, at: number, len: number): number {
    return this.#c.fallocate(fd, mode, BigInt(at), BigInt(len));
  }
  fsync(fd: number): number {
    return this.#c.fsync(fd);
  }
  mknod(path: string, mode: number, dev: number): number {
    return this.#c.mknod(c(path), mode, BigInt(dev));
  }

  /** Lets a range of a file share the blocks of another. */
  cloneRange(
    from: number,
    at: number,
    len: number,
    to: number,
    toAt: number,
  ): number {
    const arg = new BigInt64Array([from, at, len, toAt].map(BigInt));
    return this.#c.ioctl(to, BigInt(FICLONERANGE), arg);
  }

  /** Shuts a file system down.
   * @param mode 0 syncs it before, 1 writes the log before, 2 nothing. */
  goingDown(root: string, mode: number): number {
    const fd = this.open(root, O_RDONLY);
    const result = this.#c.ioctl(
      fd,
      BigInt(GOINGDOWN),
      new Uint32Array([mode]),
    );
    this.close(fd);
    return result;
  }

  /** Sets the extent size hints of a file or directory, bytes. */
  setHints(fd: number, xflags: number, extsize: number, cow: number): number {
    const arg = new Uint32Array(7);
    if (this.#c.ioctl(fd, BigInt(FSGETXATTR), arg) < 0) return -1;
    arg[0] = xflags;
    arg[1] = extsize;
    arg[4] = cow;
    return this.#c.ioctl(fd, BigInt(FSSETXATTR), arg);
  }

  setxattr(
    path: string,
    name: string,
    value: Uint8Array<ArrayBuffer>,
  ): number {
    const size = BigInt(value.length);
    return this.#c.lsetxattr(c(path), c(name), value, size, 0);
  }
  removexattr(path: string, name: string): number {
    return this.#c.lremovexattr(c(path), c(name));
  }

  /** All extended attributes by name. */
  xattrs(path: string): Map<string, Uint8Array> {
    const list = new Uint8Array(65536);
    const n = Number(
      this.#c.llistxattr(c(path), list, BigInt(list.length)),
    );
    const names = new TextDecoder("latin1").decode(list.subarray(0, n))
      .split("\0").filter((name) => name !== "").sort();
    const all = new Map<string, Uint8Array>();
    const value = new Uint8Array(65536);
    for (const name of names) {
      const len = this.#c.lgetxattr(
        c(path),
        c(name),
        value,
        BigInt(value.length),
      );
      all.set(name, value.slice(0, Math.max(0, Number(len))));
    }
    return all;
  }
}
