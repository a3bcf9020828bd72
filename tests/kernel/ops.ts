/**
 * Random operations of every kind on a directory of the host: what the kernel's XFS
 * has to put on the image.
 *
 * @module
 */

import { Prng } from "../../lib/prng.ts";
import * as C from "./libc.ts";

const KiB = 1024;

/** What is done, and how often. */
const WEIGHTS: [keyof Operations, number][] = [
  ["create", 14],
  ["write", 22],
  ["append", 8],
  ["truncate", 5],
  ["punch", 7],
  ["zero", 3],
  ["prealloc", 4],
  ["collapse", 3],
  ["insert", 3],
  ["unshare", 1],
  ["clone", 8],
  ["fragment", 2],
  ["unlink", 6],
  ["mkdir", 5],
  ["rmdir", 2],
  ["rename", 6],
  ["link", 4],
  ["symlink", 4],
  ["node", 2],
  ["xattr", 7],
  ["manyXattrs", 1],
  ["unxattr", 3],
  ["hints", 2],
  ["crowd", 1],
  ["thin", 2],
  ["sync", 1],
];

/** Does operations on what is below a directory, and keeps track of it. */
export class Operations {
  readonly #libc: C.Libc;
  readonly #random: Prng;
  readonly #dirs: string[];
  readonly #files: string[] = [];
  readonly #others: string[] = [];
  #serial = 0;

  constructor(libc: C.Libc, root: string, seed: number) {
    this.#libc = libc;
    this.#random = new Prng(seed, "ops");
    this.#dirs = [root];
  }

  /** Works on what others have made, too. */
  adopt(files: string[], dirs: string[]): void {
    this.#files.push(...files);
    this.#dirs.push(...dirs.filter((dir) => !this.#dirs.includes(dir)));
  }

  /** Does one. What the file system refuses is no failure. */
  step(): void {
    const total = WEIGHTS.reduce((n, [, w]) => n + w, 0);
    let pick = this.#random.below(total);
    for (const [name, weight] of WEIGHTS) {
      if (pick < weight) {
        try {
          (this[name] as () => void).call(this);
        } catch (error) {
          // No space, no such file by now, not empty.
          if (!(error instanceof Error) || error instanceof TypeError) {
            throw error;
          }
        }
        return;
      }
      pick -= weight;
    }
  }

  #below(n: number): number {
    return this.#random.below(n);
  }
  #any<T>(list: T[]): T {
    return list[this.#below(list.length)]!;
  }
  #path(): string {
    const len = this.#below(8) === 0 ? 20 + this.#below(220) : this.#below(12);
    const name = `${this.#serial++}-${"n".repeat(len)}`;
    return `${this.#any(this.#dirs)}/${name}`;
  }
  #bytes(n: number): Uint8Array<ArrayBuffer> {
    const data = new Uint8Array(n);
    const from = this.#below(256);
    for (let i = 0; i < n; i++) data[i] = from + i * 7 + (i >> 8);
    return data;
  }

  /** Opens a file for as long as `use` takes. */
  #with(path: string, use: (fd: number) => void): void {
    const fd = this.#libc.open(path, C.O_RDWR | C.O_CREAT);
    if (fd < 0) return;
    try {
      use(fd);
    } finally {
      this.#libc.close(fd);
    }
  }
  #file(use: (fd: number) => void): void {
    if (this.#files.length === 0) this.create();
    if (this.#files.length > 0) this.#with(this.#any(this.#files), use);
  }
  #offset(): number {
    const far = this.#below(20) === 0 ? 2 ** 25 : 256 * KiB;
    const at = this.#below(far);
    return this.#below(2) === 0 ? at : at - at % 4096;
  }
  #aligned(most: number): number {
    return (1 + this.#below(most)) * 65536;
  }

  create(): void {
    const path = this.#path();
    this.#with(path, (fd) => {
      this.#files.push(path);
      if (this.#below(2) === 0) {
        this.#libc.pwrite(fd, this.#bytes(this.#below(20 * KiB)), 0);
      }
    });
  }
  write(): void {
    const n = 1 + this.#below(this.#below(4) === 0 ? 128 * KiB : 8 * KiB);
    this.#file((fd) => this.#libc.pwrite(fd, this.#bytes(n), this.#offset()));
  }
  append(): void {
    if (this.#files.length === 0) return;
    const path = this.#any(this.#files);
    Deno.writeFileSync(path, this.#bytes(this.#below(30 * KiB)), {
      append: true,
    });
  }
  truncate(): void {
    this.#file((fd) => this.#libc.ftruncate(fd, this.#offset()));
  }
  #fallocate(mode: number): void {
    const at = this.#offset();
    const len = 1 + this.#below(100 * KiB);
    this.#file((fd) => this.#libc.fallocate(fd, mode, at, len));
  }
  punch(): void {
    this.#fallocate(C.FALLOC_PUNCH_HOLE | C.FALLOC_KEEP_SIZE);
  }
  zero(): void {
    this.#fallocate(C.FALLOC_ZERO_RANGE);
  }
  prealloc(): void {
    this.#fallocate(this.#below(2) * C.FALLOC_KEEP_SIZE);
  }
  unshare(): void {
    this.#fallocate(C.FALLOC_UNSHARE_RANGE);
  }
  collapse(): void {
    const at = this.#aligned(2) - 65536;
    this.#file((fd) =>
      this.#libc.fallocate(fd, C.FALLOC_COLLAPSE_RANGE, at, 65536)
    );
  }
  insert(): void {
    const at = this.#aligned(2) - 65536;
    this.#file((fd) =>
      this.#libc.fallocate(fd, C.FALLOC_INSERT_RANGE, at, 65536)
    );
  }
  clone(): void {
    const at = this.#aligned(3) - 65536;
    const toAt = this.#aligned(4) - 65536;
    const len = this.#below(3) === 0 ? 0 : this.#aligned(2);
    this.#file((from) =>
      this.#file((to) =>
        this.#libc.cloneRange(from, len === 0 ? 0 : at, len, to, toAt)
      )
    );
  }
  /** A file with many extents. */
  fragment(): void {
    const n = 20 + this.#below(400);
    const data = this.#bytes(512);
    this.#file((fd) => {
      for (let i = 0; i < n; i++) this.#libc.pwrite(fd, data, i * 2 * 65536);
      this.#libc.fsync(fd);
    });
  }
  unlink(): void {
    const list = this.#below(4) === 0 ? this.#others : this.#files;
    if (list.length === 0) return;
    const i = this.#below(list.length);
    const [path] = list.splice(i, 1);
    Deno.removeSync(path!);
  }
  mkdir(): void {
    const path = this.#path();
    Deno.mkdirSync(path);
    this.#dirs.push(path);
  }
  rmdir(): void {
    if (this.#dirs.length < 2) return;
    const i = 1 + this.#below(this.#dirs.length - 1);
    Deno.removeSync(this.#dirs[i]!);
    this.#dirs.splice(i, 1);
  }
  rename(): void {
    if (this.#files.length === 0) return;
    const i = this.#below(this.#files.length);
    const over = this.#below(3) === 0;
    const to = over ? this.#any(this.#files) : this.#path();
    const from = this.#files[i]!;
    if (from === to) return;
    Deno.renameSync(from, to);
    this.#files.splice(i, 1);
    if (!over) this.#files.push(to);
  }
  link(): void {
    if (this.#files.length === 0) return;
    const path = this.#path();
    Deno.linkSync(this.#any(this.#files), path);
    this.#files.push(path);
  }
  symlink(): void {
    const path = this.#path();
    const long = this.#below(2) === 0;
    const target = "t/".repeat(1 + this.#below(long ? 500 : 60));
    Deno.symlinkSync(target, path);
    this.#others.push(path);
  }
  node(): void {
    const path = this.#path();
    const isFifo = this.#below(2) === 0;
    const done = isFifo
      ? this.#libc.mknod(path, C.S_IFIFO | 0o600, 0)
      : this.#libc.mknod(path, C.S_IFCHR | 0o600, 5 * 256 + 6);
    if (done === 0) this.#others.push(path);
  }
  #anyPath(): string {
    const lists = [this.#files, this.#dirs, this.#others];
    const list = this.#any(lists.filter((l) => l.length > 0));
    return this.#any(list);
  }
  xattr(): void {
    const size = this.#any([3, 40, 300, 2000, 9000, 60000]);
    const space = this.#any(["user", "trusted", "security"]);
    const name = `${space}.x${this.#below(30)}`;
    const path = this.#anyPath();
    this.#libc.setxattr(path, name, this.#bytes(this.#below(size)));
  }
  /** A tree of attributes. */
  manyXattrs(): void {
    const path = this.#anyPath();
    const n = this.#below(150);
    for (let i = 0; i < n; i++) {
      const name = `trusted.many-${i}-${"x".repeat(this.#below(60))}`;
      this.#libc.setxattr(path, name, this.#bytes(this.#below(100)));
    }
  }
  unxattr(): void {
    const path = this.#anyPath();
    const names = [...this.#libc.xattrs(path).keys()];
    for (const name of names) {
      if (this.#below(2) === 0) this.#libc.removexattr(path, name);
    }
  }
  hints(): void {
    const size = this.#any([0, 65536, 131072]);
    const flag = size === 0 ? 0 : C.XFLAG_COWEXTSIZE;
    if (this.#below(2) === 0) {
      return this.#file((fd) => this.#libc.setHints(fd, flag, 0, size));
    }
    const fd = this.#libc.open(this.#any(this.#dirs), C.O_RDONLY);
    if (fd < 0) return;
    const inherit = size === 0 ? 0 : C.XFLAG_EXTSZINHERIT;
    this.#libc.setHints(fd, inherit, size, 0);
    this.#libc.close(fd);
  }
  /** Many names in one directory. */
  crowd(): void {
    const dir = this.#any(this.#dirs);
    const n = this.#below(600);
    for (let i = 0; i < n; i++) {
      const path = `${dir}/crowd-${this.#serial++}`;
      this.#with(path, () => this.#files.push(path));
    }
  }
  /** Removes every other file of some. */
  thin(): void {
    const from = this.#below(this.#files.length + 1);
    const some = this.#files.splice(from, this.#below(200));
    for (const [i, path] of some.entries()) {
      if (i % 2 === 0) Deno.removeSync(path);
      else this.#files.push(path);
    }
  }
  sync(): void {
    this.#file((fd) => this.#libc.fsync(fd));
  }
}
