/**
 * Random operations of every kind on a whole file system, against a plain model.
 *
 * Goal: no sequence of calls, on no set of options, leaves a file system that differs
 * from the model, that is not clean, or that has lost space. Method: each operation is
 * done to both, and has to answer what the model says; now and then the file system is
 * unmounted, checked, mounted again and compared in full. Oracle: the model, and our own
 * check of images. A run is given by its seed.
 *
 * @module
 */

import { FsError } from "../../../lib/errno.ts";
import { Prng } from "../../../lib/prng.ts";
import {
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_ZERO_RANGE,
  type FsFile,
  type Mount,
  mount,
  type MountOptions,
  type NvmeDevice,
  type OpenOptions,
} from "../../../mod.ts";
import type { MkfsXfsOptions } from "../../../fs/xfs/mkfs.ts";
import type { XfsMount } from "../../../fs/xfs/mount.ts";
import { assertCleanImage } from "./clean.ts";
import { newXfs, xfs } from "./fixture.ts";
import {
  fileHolds,
  listingDifference,
  listModel,
  listMount,
  readFull,
} from "./tree_listing.ts";
import {
  addEntry,
  type Content,
  type Entry,
  isAbove,
  newNode,
  type Node,
  pathOf,
  removeEntry,
} from "./tree_model.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
/** Where most of what is written lies. */
const NEAR = 384 * KiB;
/** A file's size as far as operations make it, but for the few that reach far. */
const FAR = 2 ** 40;
const READ_WRITE: OpenOptions = { read: true, write: true };

/** What is done, and how often. */
const WEIGHTS = {
  create: 18,
  mkdir: 4,
  symlink: 3,
  link: 4,
  unlink: 6,
  rmdir: 2,
  rename: 9,
  crowd: 1,
  thin: 2,
  setXattr: 8,
  removeXattr: 4,
  manyXattrs: 1,
  write: 16,
  append: 6,
  directWrite: 10,
  atomicWrite: 4,
  store: 6,
  fragment: 1,
  burst: 5,
  truncate: 6,
  allocate: 4,
  punch: 5,
  zero: 4,
  collapse: 3,
  insert: 3,
  unshare: 3,
  clone: 8,
  dedupe: 3,
  copyRange: 4,
  read: 6,
  directRead: 3,
  look: 4,
  open: 3,
  close: 2,
  fsync: 3,
  sync: 1,
  dropCache: 2,
} as const;

type OpName = keyof typeof WEIGHTS;

const NAMES = Object.keys(WEIGHTS) as OpName[];
const TOTAL = NAMES.reduce((sum, name) => sum + WEIGHTS[name], 0);

/** A file that stays open, maybe without a name by now. */
interface Handle {
  file: FsFile;
  node: Node;
}

/** How one run goes. */
interface StressOptions {
  seed: number;
  /** Operations. */
  ops: number;
  /** After so many, everything is checked; 500 if absent. */
  checkEvery?: number;
  /** Of the file system. */
  mkfs?: MkfsXfsOptions;
  /** Size of the device, bytes; 256 MiB if absent. */
  size?: number;
  /** Called with each operation. */
  trace?: (line: string) => void;
  /** Called after each operation, to look for what went wrong. */
  inspect?: (fs: Mount, root: Node) => unknown;
}

/** Runs one. @returns The device, unmounted, and what should be on it.
 * @throws Error saying after which operation what was wrong. */
export async function runTreeStress(
  options: StressOptions,
): Promise<{ device: NvmeDevice; lines: string[] }> {
  const { mkfs = {}, size = 256 * MiB, checkEvery = 500 } = options;
  // A device that takes its time leaves calls waiting in between.
  const preset = options.seed % 2 === 0 ? "null" : "optane";
  const device = await newXfs({ size, preset, ...mkfs });
  const stress = new TreeStress(device, options);
  try {
    await stress.begin();
    for (let i = 1; i <= options.ops; i++) {
      await stress.step();
      if (i % checkEvery === 0 || i === options.ops) await stress.check();
      // Not at the end: then there is an image to look at.
      if (i % (4 * checkEvery) === 0 && i < options.ops) await stress.empty();
    }
    return { device, lines: await stress.end() };
  } catch (error) {
    const recent = stress.recent.join("\n  ");
    const where = `seed ${options.seed}, ${JSON.stringify(mkfs)}, ` +
      `after ${stress.done} operations`;
    throw new Error(`${where}:\n  ${recent}`, { cause: error });
  }
}

/** A file system, and what it should hold. */
class TreeStress {
  readonly #device: NvmeDevice;
  readonly #random: Prng;
  readonly #trace: (line: string) => void;
  readonly #inspect: (fs: Mount, root: Node) => unknown;
  readonly #blockSize: number;
  readonly #reflink: boolean;
  #fs!: Mount;
  /** Free blocks of the new file system. */
  #free = 0;
  /** Inodes of it, used or not. */
  #inodes = 0;
  readonly #root = newNode("dir", 0o755);
  #dirs: Node[] = [this.#root];
  /** All names, directories' too. */
  #entries: Entry[] = [];
  #handles: Handle[] = [];
  #serial = 0;
  done = 0;
  /** The operations done last. */
  readonly recent: string[] = [];

  constructor(device: NvmeDevice, options: StressOptions) {
    const { seed, mkfs = {}, trace, inspect } = options;
    this.#device = device;
    this.#random = new Prng(seed, "tree");
    this.#trace = trace ?? (() => {});
    this.#inspect = inspect ?? (() => {});
    this.#blockSize = mkfs.blockSize ?? 4096;
    this.#reflink = mkfs.reflink ?? true;
  }

  async begin(): Promise<void> {
    await this.#mount();
    this.#free = this.#fs.statfs().blocksFree;
    this.#inodes = (this.#fs.superBlock as XfsMount).sb.icount;
  }

  async #mount(): Promise<void> {
    const options: MountOptions = {};
    // Little memory makes writeback go on all the time.
    if (this.#below(2) === 0) options.memory = (4 + this.#below(12)) * MiB;
    if (this.#below(4) === 0) options.options = "allocsize=64k";
    this.#fs = await mount(this.#device, xfs, options);
  }

  /** Unmounts, checks the image, mounts, compares everything. */
  async check(): Promise<void> {
    await this.#closeAll();
    // What is in memory has to be the same, too.
    if (this.#below(2) === 0) await this.#compare("before unmount");
    await this.#fs.unmount();
    assertCleanImage(this.#device);
    await this.#mount();
    await this.#compare("after unmount");
  }

  async #compare(when: string): Promise<void> {
    const want = listModel(this.#root);
    const got = await listMount(this.#fs);
    const difference = listingDifference(want, got);
    if (difference !== "") throw new Error(`${when}:\n${difference}`);
  }

  /** Deletes everything: all space has to come back. */
  async empty(): Promise<void> {
    this.#note("empty");
    await this.#closeAll();
    await this.#emptyDir(this.#root);
    this.#entries = [];
    this.#dirs = [this.#root];
    for (const name of this.#root.xattrs.keys()) {
      await this.#fs.removeXattr("/", name);
    }
    this.#root.xattrs.clear();
    await this.#fs.sync();
    this.#expectFree("before unmount");
    await this.#fs.unmount();
    assertCleanImage(this.#device);
    await this.#mount();
    this.#expectFree("after unmount");
  }

  #expectFree(when: string): void {
    const { blocksFree } = this.#fs.statfs();
    const free = this.#free - this.#inodeBlocks();
    if (blocksFree === free) return;
    throw new Error(`${when}: ${blocksFree} blocks free, not ${free}`);
  }

  /** Blocks that inodes have taken for ever: one that holds several chunks is not given
   * back. */
  #inodeBlocks(): number {
    const { icount, inopblock } = (this.#fs.superBlock as XfsMount).sb;
    const kept = inopblock > 64 ? icount - this.#inodes : 0;
    return kept / inopblock;
  }

  async #emptyDir(dir: Node): Promise<void> {
    const names = [...dir.children.keys()];
    // From both ends and the middle, so that directories shrink in every way.
    while (names.length > 0) {
      const [name] = names.splice(this.#below(names.length), 1);
      const node = dir.children.get(name!)!;
      const path = `${pathOf(dir)}/${name}`;
      if (node.kind === "dir") await this.#emptyDir(node);
      await this.#fs.remove(path);
      removeEntry({ dir, name: name! });
    }
  }

  /** Unmounts for good. @returns What should be on the image. */
  async end(): Promise<string[]> {
    await this.#closeAll();
    await this.#fs.unmount();
    return listModel(this.#root);
  }

  /** Does one operation. */
  async step(): Promise<void> {
    let pick = this.#below(TOTAL);
    const name = NAMES.find((name) => (pick -= WEIGHTS[name]) < 0)!;
    this.done++;
    await this.#makeRoom();
    await this[name]();
    await this.#inspect(this.#fs, this.#root);
  }

  #below(n: number): number {
    return this.#random.below(n);
  }
  #any<T>(list: readonly T[]): T {
    return list[this.#below(list.length)]!;
  }
  #note(text: string): void {
    const line = `${this.done}: ${text}`;
    this.#trace(line);
    this.recent.push(line);
    if (this.recent.length > 30) this.recent.shift();
  }

  /** ENOSPC has tests of its own: here there is always room. */
  async #makeRoom(): Promise<void> {
    const { blocks, blocksFree } = this.#fs.statfs();
    if (blocksFree > blocks / 4) return;
    this.#note("make room");
    await this.#closeAll();
    for (const entry of [...this.#entries]) {
      const node = entry.dir.children.get(entry.name)!;
      if (node.kind !== "file" || this.#below(3) > 0) continue;
      await this.#remove(entry);
    }
  }

  /** Does it, and compares how it went with what should come of it. */
  async #expect(
    want: string,
    what: string,
    run: () => Promise<unknown>,
  ): Promise<boolean> {
    this.#note(`${what}${want === "" ? "" : ` -> ${want}`}`);
    let got = "";
    try {
      await run();
    } catch (error) {
      if (!(error instanceof FsError)) throw error;
      got = error.code;
      if (got !== want) throw error;
    }
    if (got !== want) throw new Error(`${what}: done, not ${want}`);
    return got === "";
  }

  // Names.

  #newName(): string {
    const id = (this.#serial++).toString(36);
    switch (this.#below(12)) {
      case 0:
        return `${id}${"long".repeat(this.#below(62))}`;
      case 1:
        return `${id}-ä€𝄞`;
      default:
        return `f${id}`;
    }
  }
  /** A name that is free, mostly, in some directory. */
  #target(): Entry {
    if (this.#entries.length > 0 && this.#below(20) === 0) {
      return this.#any(this.#entries);
    }
    return { dir: this.#any(this.#dirs), name: this.#newName() };
  }
  #path({ dir, name }: Entry): string {
    return `${pathOf(dir)}/${name}`;
  }
  #nodeAt({ dir, name }: Entry): Node | undefined {
    return dir.children.get(name);
  }
  /** Some name of something of the kind, or null. */
  #entry(...kinds: Node["kind"][]): Entry | null {
    for (let i = 0; i < 20 && this.#entries.length > 0; i++) {
      const entry = this.#any(this.#entries);
      if (kinds.includes(this.#nodeAt(entry)!.kind)) return entry;
    }
    return null;
  }
  #added(entry: Entry, node: Node): void {
    addEntry(entry, node);
    this.#entries.push(entry);
    if (node.kind === "dir") this.#dirs.push(node);
  }
  #removed(entry: Entry): void {
    const node = this.#nodeAt(entry)!;
    removeEntry(entry);
    node.nlink--;
    const i = this.#entries.findIndex((e) =>
      e.dir === entry.dir && e.name === entry.name
    );
    this.#entries[i] = this.#entries.at(-1)!;
    this.#entries.pop();
    if (node.kind === "dir") this.#dirs.splice(this.#dirs.indexOf(node), 1);
  }
  async #remove(entry: Entry): Promise<void> {
    const path = this.#path(entry);
    await this.#expect("", `remove ${path}`, () => this.#fs.remove(path));
    this.#removed(entry);
  }

  async create(): Promise<void> {
    const entry = this.#target();
    const path = this.#path(entry);
    const mode = this.#any([0o600, 0o644, 0o755]);
    const want = this.#nodeAt(entry) === undefined ? "" : "EEXIST";
    const made = await this.#expect(want, `create ${path}`, async () => {
      using file = await this.#fs.open(path, {
        ...READ_WRITE,
        createNew: true,
        mode,
      });
      const size = file.statSync().size;
      if (size !== 0) throw new Error(`a new file has ${size} bytes`);
    });
    if (!made) return;
    const node = newNode("file", mode);
    this.#added(entry, node);
    if (this.#below(2) === 0) await this.#writeTo(node, path, 16 * KiB, 0);
  }

  async mkdir(): Promise<void> {
    const entry = this.#target();
    const path = this.#path(entry);
    const want = this.#nodeAt(entry) === undefined ? "" : "EEXIST";
    const made = await this.#expect(
      want,
      `mkdir ${path}`,
      () => this.#fs.mkdir(path),
    );
    if (made) this.#added(entry, newNode("dir", 0o755));
  }

  async symlink(): Promise<void> {
    const entry = this.#target();
    const path = this.#path(entry);
    const most = this.#any([20, 300, 1030]);
    const target = "t".repeat(1 + this.#below(most));
    let want = target.length >= 1024 ? "ENAMETOOLONG" : "";
    if (this.#nodeAt(entry) !== undefined) want = "EEXIST";
    const what = `symlink ${path} to ${target.length} bytes`;
    const made = await this.#expect(
      want,
      what,
      () => this.#fs.symlink(target, path),
    );
    if (made) this.#added(entry, newNode("link", 0o777, target));
  }

  async link(): Promise<void> {
    const from = this.#entry("file", "link");
    if (from === null) return;
    const entry = this.#target();
    const [old, path] = [this.#path(from), this.#path(entry)];
    const want = this.#nodeAt(entry) === undefined ? "" : "EEXIST";
    const what = `link ${old} as ${path}`;
    if (!await this.#expect(want, what, () => this.#fs.link(old, path))) return;
    const node = this.#nodeAt(from)!;
    node.nlink++;
    this.#added(entry, node);
  }

  async unlink(): Promise<void> {
    const entry = this.#entry("file", "link");
    if (entry !== null) await this.#remove(entry);
  }

  async rmdir(): Promise<void> {
    const entry = this.#entry("dir");
    if (entry === null) return;
    const path = this.#path(entry);
    const want = this.#nodeAt(entry)!.children.size === 0 ? "" : "ENOTEMPTY";
    const what = `rmdir ${path}`;
    const done = await this.#expect(want, what, () => this.#fs.rmdir(path));
    if (done) this.#removed(entry);
  }

  async rename(): Promise<void> {
    if (this.#entries.length === 0) return;
    const from = this.#any(this.#entries);
    const to = this.#below(3) === 0 ? this.#any(this.#entries) : this.#target();
    const kind = this.#any(["", "", "noReplace", "exchange"]);
    const exchange = kind === "exchange";
    const [old, path] = [this.#path(from), this.#path(to)];
    const want = this.#renameAnswer(from, to, kind);
    const how = kind === "" ? {} : { [kind]: true };
    const done = await this.#expect(
      want,
      `rename ${kind} ${old} to ${path}`,
      () => this.#fs.rename(old, path, how),
    );
    const source = this.#nodeAt(from)!;
    const victim = this.#nodeAt(to);
    if (!done || source === victim) return;
    if (victim !== undefined) this.#removed(to);
    this.#removed(from);
    this.#added(to, source);
    source.nlink++;
    if (!exchange) return;
    this.#added(from, victim!);
    victim!.nlink++;
  }

  #renameAnswer(from: Entry, to: Entry, kind: string): string {
    const source = this.#nodeAt(from)!;
    const victim = this.#nodeAt(to);
    if (kind === "noReplace" && victim !== undefined) return "EEXIST";
    if (kind === "exchange" && victim === undefined) return "ENOENT";
    if (source.kind === "dir" && isAbove(source, to.dir)) return "EINVAL";
    if (victim?.kind === "dir" && isAbove(victim, from.dir)) {
      return kind === "exchange" ? "EINVAL" : "ENOTEMPTY";
    }
    if (victim === undefined || victim === source || kind === "exchange") {
      return "";
    }
    if (source.kind === "dir" && victim.kind !== "dir") return "ENOTDIR";
    if (source.kind !== "dir" && victim.kind === "dir") return "EISDIR";
    return victim.children.size > 0 ? "EEXIST" : "";
  }

  /** Many names in one directory. */
  async crowd(): Promise<void> {
    const dir = this.#any(this.#dirs);
    const count = this.#below(300);
    const base = pathOf(dir);
    this.#note(`crowd ${base} with ${count}`);
    for (let i = 0; i < count; i++) {
      const name = this.#newName();
      const open = { ...READ_WRITE, createNew: true };
      (await this.#fs.open(`${base}/${name}`, open)).close();
      this.#added({ dir, name }, newNode("file", 0o644));
    }
  }

  /** Removes every other file of the largest directory. */
  async thin(): Promise<void> {
    const dir = this.#dirs.reduce((a, b) =>
      b.children.size > a.children.size ? b : a
    );
    const names = [...dir.children.keys()].filter((_, i) => i % 2 === 0);
    for (const name of names) {
      if (dir.children.get(name)!.kind === "dir") continue;
      await this.#remove({ dir, name });
    }
  }

  // Attributes.

  #attrOwner(): { node: Node; path: string } {
    const entry = this.#entry("file", "dir");
    if (entry === null) return { node: this.#root, path: "/" };
    return { node: this.#nodeAt(entry)!, path: this.#path(entry) };
  }

  async setXattr(): Promise<void> {
    const { node, path } = this.#attrOwner();
    const space = this.#any(["user", "trusted", "security"]);
    const long = this.#below(10) === 0 ? "n".repeat(200) : "";
    const name = `${space}.${long}${this.#below(12)}`;
    const most = this.#any([0, 3, 60, 500, 2500, 9000, 65536]);
    const value = this.#bytes(this.#below(most + 1));
    const flag = this.#any(["", "", "", "create", "replace"]);
    const has = node.xattrs.has(name);
    let want = "";
    if (flag === "create" && has) want = "EEXIST";
    if (flag === "replace" && !has) want = "ENODATA";
    const what = `setXattr ${path} ${name} ${value.length} ${flag}`;
    const how = flag === "" ? {} : { [flag]: true };
    const done = await this.#expect(
      want,
      what,
      () => this.#fs.setXattr(path, name, value, how),
    );
    if (done) node.xattrs.set(name, value);
  }

  async removeXattr(): Promise<void> {
    const { node, path } = this.#attrOwner();
    const names = [...node.xattrs.keys()];
    if (names.length === 0) {
      const none = () => this.#fs.removeXattr(path, "user.none");
      await this.#expect("ENODATA", `removeXattr ${path}`, none);
      return;
    }
    for (const name of this.#below(3) === 0 ? names : [this.#any(names)]) {
      const what = `removeXattr ${path} ${name}`;
      await this.#expect("", what, () => this.#fs.removeXattr(path, name));
      node.xattrs.delete(name);
    }
  }

  /** A tree of attributes. */
  async manyXattrs(): Promise<void> {
    const { node, path } = this.#attrOwner();
    const count = this.#below(120);
    this.#note(`${count} xattrs of ${path}`);
    for (let i = 0; i < count; i++) {
      const name = `user.many-${i}-${"m".repeat(this.#below(60))}`;
      const value = this.#bytes(this.#below(200));
      await this.#fs.setXattr(path, name, value);
      node.xattrs.set(name, value);
    }
  }

  // Files.

  #bytes(length: number): Uint8Array {
    const data = new Uint8Array(length);
    let x = this.#random.u32();
    for (let i = 0; i < length; i++) {
      x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
      data[i] = x >>> 24;
    }
    return data;
  }
  #offset(): number {
    const at = this.#below(this.#below(60) === 0 ? FAR : NEAR);
    const grain = this.#any([1, 1, 512, 4096, this.#blockSize]);
    return at - at % grain;
  }
  #length(most = 96 * KiB): number {
    const n = 1 + this.#below(this.#any([100, 5000, most]));
    const grain = this.#any([1, 1, 4096, this.#blockSize]);
    return Math.ceil(n / grain) * grain;
  }
  #blocks(most: number): number {
    return this.#below(Math.ceil(most / this.#blockSize)) * this.#blockSize;
  }

  /** Uses an open file, maybe one without a name. */
  async #withFile(
    open: OpenOptions,
    use: (file: FsFile, node: Node, path: string) => Promise<void>,
  ): Promise<void> {
    const plain = open === READ_WRITE;
    if (plain && this.#handles.length > 0 && this.#below(4) === 0) {
      const { file, node } = this.#any(this.#handles);
      return await use(file, node, `(open) ${file.path}`);
    }
    const entry = this.#entry("file");
    if (entry === null) return;
    const path = this.#path(entry);
    await using file = await this.#fs.open(path, open);
    await use(file, this.#nodeAt(entry)!, path);
  }

  async #writeTo(
    node: Node,
    path: string,
    most: number,
    at: number,
  ): Promise<void> {
    using file = await this.#fs.open(path, READ_WRITE);
    await this.#write(file, node, path, at, this.#bytes(this.#length(most)));
  }

  async #write(
    file: FsFile,
    node: Node,
    path: string,
    at: number,
    data: Uint8Array,
    how = {},
  ): Promise<void> {
    const what = `write ${path} ${at}+${data.length} ${JSON.stringify(how)}`;
    await this.#expect("", what, async () => {
      for (let done = 0; done < data.length;) {
        const rest = data.subarray(done);
        done += await file.write(rest, { at: at + done, ...how });
      }
    });
    node.content.write(at, data);
  }

  async write(): Promise<void> {
    const data = this.#bytes(this.#length());
    const how = this.#any([{}, {}, {}, { dsync: true }, { dontcache: true }]);
    await this.#withFile(
      READ_WRITE,
      (file, node, path) =>
        this.#write(file, node, path, this.#offset(), data, how),
    );
  }

  async append(): Promise<void> {
    const open = { append: true, read: true };
    await this.#withFile(open, async (file, node, path) => {
      for (let n = this.#below(5); n >= 0; n--) {
        const data = this.#bytes(this.#length(20 * KiB));
        const at = node.content.size;
        await this.#write(file, node, path, at, data);
      }
    });
  }

  async directWrite(): Promise<void> {
    const grain = this.#any([512, 4096, this.#blockSize]);
    const most = this.#any([8 * KiB, 128 * KiB]);
    const at = this.#offset();
    const length = Math.ceil((1 + this.#below(most)) / grain) * grain;
    const open = { ...READ_WRITE, direct: true };
    await this.#withFile(
      open,
      (file, node, path) =>
        this.#write(file, node, path, at - at % grain, this.#bytes(length)),
    );
  }

  async atomicWrite(): Promise<void> {
    const open = { ...READ_WRITE, direct: true };
    await this.#withFile(open, async (file, node, path) => {
      const { atomicWriteUnitMin, atomicWriteUnitMax } = file.statSync();
      if (atomicWriteUnitMin === 0) return;
      const max = Math.min(atomicWriteUnitMax, 128 * KiB);
      let length = atomicWriteUnitMin;
      while (length * 2 <= max && this.#below(2) === 0) length *= 2;
      const at = this.#below(NEAR);
      const data = this.#bytes(length);
      const how = { atomic: true };
      await this.#write(file, node, path, at - at % length, data, how);
    });
  }

  /** By a mapping. */
  async store(): Promise<void> {
    await this.#withFile(READ_WRITE, async (file, node, path) => {
      const { content } = node;
      if (content.size === 0) return;
      const from = this.#below(Math.min(content.size, NEAR));
      const offset = from - from % 4096;
      const length = Math.min(64 * KiB, content.size - offset);
      const at = this.#below(length);
      const data = this.#bytes(1 + this.#below(length - at));
      const what = `store ${path} ${offset + at}+${data.length}`;
      await this.#expect("", what, async () => {
        using map = await file.mmap({ offset, length, write: true });
        await map.store(at, data);
        if (this.#below(3) === 0) await map.sync();
      });
      content.store(offset + at, data);
    });
  }

  /** A file with many extents. */
  async fragment(): Promise<void> {
    const step = Math.max(8 * KiB, 2 * this.#blockSize);
    const count = Math.min(20 + this.#below(250), 8 * MiB / step);
    await this.#withFile(READ_WRITE, async (file, node, path) => {
      this.#note(`fragment ${path} ${count} by ${step}`);
      const data = this.#bytes(600);
      for (let i = 0; i < count; i++) {
        await file.write(data, { at: i * step });
        node.content.write(i * step, data);
      }
      await file.sync();
    });
  }

  /** Works on several files at a time. */
  async burst(): Promise<void> {
    const files = new Map<Node, Entry>();
    for (let n = 2 + this.#below(5); n > 0; n--) {
      const entry = this.#entry("file");
      if (entry !== null) files.set(this.#nodeAt(entry)!, entry);
    }
    const work = [...files].map(([node, entry]) =>
      this.#work(node, this.#path(entry))
    );
    if (this.#below(3) === 0) work.push(this.#fs.sync());
    await Promise.all(work);
  }

  async #work(node: Node, path: string): Promise<void> {
    const { content } = node;
    const direct = this.#below(3) === 0;
    await using file = await this.#fs.open(path, { ...READ_WRITE, direct });
    for (let n = 1 + this.#below(5); n > 0; n--) {
      const [from, bytes] = [this.#offset(), this.#length()];
      const at = direct ? from - from % 512 : from;
      const length = direct ? Math.ceil(bytes / 512) * 512 : bytes;
      switch (this.#below(8)) {
        case 0:
          await this.#expect("", `fsync ${path}`, () => file.sync());
          break;
        case 1:
          await this.#expect("", `truncate ${path} ${at}`, async () => {
            await file.truncate(at);
            content.truncate(at);
          });
          break;
        case 2: {
          const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
          await this.#expect("", `punch ${path} ${at}+${length}`, async () => {
            await file.fallocate(mode, at, length);
            content.zero(at, at + length);
          });
          break;
        }
        case 3:
          await this.#readBack(file, node, at, length);
          break;
        default:
          await this.#write(file, node, path, at, this.#bytes(length));
      }
    }
  }

  async truncate(): Promise<void> {
    const size = this.#below(4) === 0 ? 0 : this.#offset();
    await this.#withFile(READ_WRITE, async (file, node, path) => {
      const what = `truncate ${path} ${size}`;
      await this.#expect("", what, () => file.truncate(size));
      node.content.truncate(size);
    });
  }

  async #fallocate(
    mode: number,
    at: number,
    length: number,
    change: (content: Content) => void,
    answer: (content: Content) => string = () => "",
  ): Promise<void> {
    await this.#withFile(READ_WRITE, async (file, { content }, path) => {
      const what = `fallocate ${path} 0x${mode.toString(16)} ${at}+${length}`;
      const done = await this.#expect(
        answer(content),
        what,
        () => file.fallocate(mode, at, length),
      );
      if (done) change(content);
    });
  }
  #grow(content: Content, mode: number, end: number): void {
    if ((mode & FALLOC_FL_KEEP_SIZE) !== 0) return;
    content.size = Math.max(content.size, end);
  }
  async allocate(): Promise<void> {
    const mode = this.#any([0, FALLOC_FL_KEEP_SIZE]);
    const [at, length] = [this.#offset(), this.#length(300 * KiB)];
    await this.#fallocate(
      mode,
      at,
      length,
      (c) => this.#grow(c, mode, at + length),
    );
  }
  async punch(): Promise<void> {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const [at, length] = [this.#offset(), this.#length(300 * KiB)];
    await this.#fallocate(mode, at, length, (c) => c.zero(at, at + length));
  }
  async zero(): Promise<void> {
    const mode = FALLOC_FL_ZERO_RANGE | this.#any([0, FALLOC_FL_KEEP_SIZE]);
    const [at, length] = [this.#offset(), this.#length(300 * KiB)];
    await this.#fallocate(mode, at, length, (c) => {
      c.zero(at, at + length);
      this.#grow(c, mode, at + length);
    });
  }
  async unshare(): Promise<void> {
    const mode = FALLOC_FL_UNSHARE_RANGE | this.#any([0, FALLOC_FL_KEEP_SIZE]);
    const [at, length] = [this.#offset(), this.#length(300 * KiB)];
    await this.#fallocate(
      mode,
      at,
      length,
      (c) => this.#grow(c, mode, at + length),
    );
  }
  async collapse(): Promise<void> {
    const bs = this.#blockSize;
    const odd = this.#below(10) === 0 ? 512 : 0;
    const at = this.#blocks(NEAR) + odd;
    const length = bs + this.#blocks(64 * KiB);
    await this.#fallocate(
      FALLOC_FL_COLLAPSE_RANGE,
      at,
      length,
      (c) => c.collapse(at, length),
      (c) => odd > 0 || at + length >= c.size ? "EINVAL" : "",
    );
  }
  async insert(): Promise<void> {
    const bs = this.#blockSize;
    const odd = this.#below(10) === 0 ? 512 : 0;
    const at = this.#blocks(NEAR / 2) + odd;
    const length = bs + this.#blocks(64 * KiB);
    await this.#fallocate(
      FALLOC_FL_INSERT_RANGE,
      at,
      length,
      (c) => c.insert(at, length),
      (c) => odd > 0 || at >= c.size ? "EINVAL" : "",
    );
  }

  /** Two open files, or one twice. */
  async #withTwo(
    use: (
      from: FsFile,
      source: Content,
      to: FsFile,
      target: Content,
      what: string,
    ) => Promise<void>,
  ): Promise<void> {
    await this.#withFile(READ_WRITE, async (from, source, fromPath) => {
      await this.#withFile(READ_WRITE, async (to, target, toPath) => {
        const what = `${fromPath} to ${toPath}`;
        await use(from, source.content, to, target.content, what);
      });
    });
  }

  async clone(): Promise<void> {
    await this.#withTwo(async (from, source, to, target, what) => {
      const srcOffset = this.#blocks(Math.min(source.size, NEAR));
      const offset = this.#blocks(NEAR);
      if (srcOffset >= source.size) return;
      const rest = source.size - srcOffset;
      // All, or whole blocks of it.
      let length = this.#blocks(Math.min(rest, 256 * KiB));
      if (this.#below(2) === 0 || length === 0) length = 0;
      const bytes = length === 0 ? rest : length;
      let want = "";
      if (!this.#reflink) want = "EOPNOTSUPP";
      else if (this.#overlaps(source, target, srcOffset, offset, bytes)) {
        want = "EINVAL";
      } else if (
        bytes % this.#blockSize !== 0 && offset + bytes < target.size
      ) want = "EINVAL";
      const range = { srcOffset, offset, length };
      const done = await this.#expect(
        want,
        `clone ${what} ${JSON.stringify(range)}`,
        () => to.cloneRange(from, range),
      );
      if (done) target.copy(source, srcOffset, offset, bytes);
    });
  }

  #overlaps(
    source: Content,
    target: Content,
    from: number,
    at: number,
    bytes: number,
  ): boolean {
    const bs = this.#blockSize;
    const length = Math.ceil(bytes / bs) * bs;
    return source === target && from < at + length && at < from + length;
  }

  async dedupe(): Promise<void> {
    await this.#withTwo(async (from, source, to, target, what) => {
      const bs = this.#blockSize;
      const srcOffset = this.#blocks(Math.min(source.size, NEAR));
      const offset = this.#blocks(Math.min(target.size, NEAR));
      const most = Math.min(source.size - srcOffset, target.size - offset);
      const whole = Math.min(most - most % bs, 64 * KiB + bs);
      if (whole < bs) return;
      const length = bs + this.#blocks(whole - bs);
      if (this.#overlaps(source, target, srcOffset, offset, length)) return;
      const wanted = source.read(srcOffset, length);
      if (this.#below(2) === 0) {
        await to.write(wanted, { at: offset });
        target.write(offset, wanted);
      }
      const there = target.read(offset, length);
      const equal = wanted.every((byte, i) => byte === there[i]);
      let want = equal ? "" : "EBADE";
      if (!this.#reflink) want = "EOPNOTSUPP";
      const range = { srcOffset, offset, length };
      await this.#expect(
        want,
        `dedupe ${what} ${JSON.stringify(range)}`,
        () => to.dedupeRange(from, range),
      );
    });
  }

  async copyRange(): Promise<void> {
    await this.#withTwo(async (from, source, to, target, what) => {
      const srcOffset = this.#below(Math.min(source.size, NEAR) + 1);
      const offset = this.#below(2) === 0 ? this.#offset() : srcOffset;
      const left = Math.max(0, source.size - srcOffset);
      const length = Math.min(left, this.#length());
      const same = source === target;
      if (length === 0) return;
      if (same && srcOffset < offset + length && offset < srcOffset + length) {
        return;
      }
      const ranges = `${srcOffset} ${offset} ${length}`;
      await this.#expect("", `copyRange ${what} ${ranges}`, async () => {
        for (let done = 0; done < length;) {
          const n = await to.copyRange(from, {
            srcOffset: srcOffset + done,
            offset: offset + done,
            length: length - done,
          });
          if (n === 0) throw new Error(`copied ${done} of ${length}`);
          done += n;
        }
      });
      target.copy(source, srcOffset, offset, length);
    });
  }

  async #readBack(
    file: FsFile,
    { content }: Node,
    at: number,
    length: number,
  ): Promise<void> {
    const got = new Uint8Array(length);
    const n = await readFull(file, at, got);
    const want = Math.max(0, Math.min(length, content.size - at));
    if (n !== want) throw new Error(`read ${n} bytes, not ${want}`);
    const expected = content.read(at, n);
    const i = expected.findIndex((byte, i) => byte !== got[i]);
    if (i < 0) return;
    throw new Error(`byte ${at + i} is ${got[i]}, not ${expected[i]}`);
  }
  async read(): Promise<void> {
    const [at, length] = [this.#offset(), this.#length()];
    await this.#withFile(READ_WRITE, async (file, node, path) => {
      this.#note(`read ${path} ${at}+${length}`);
      await this.#readBack(file, node, at, length);
    });
  }
  async directRead(): Promise<void> {
    const open = { read: true, direct: true };
    const at = this.#offset();
    await this.#withFile(open, async (file, node, path) => {
      const length = Math.ceil(this.#length() / 512) * 512;
      this.#note(`direct read ${path} ${at - at % 512}+${length}`);
      await this.#readBack(file, node, at - at % 512, length);
    });
  }

  /** Looks at all of a file, or a directory. */
  async look(): Promise<void> {
    await this.#withFile(READ_WRITE, async (file, node, path) => {
      this.#note(`look ${path}`);
      const { size, nlink } = file.statSync();
      const want = `${node.content.size} ${node.nlink}`;
      if (`${size} ${nlink}` !== want) {
        throw new Error(`size and nlink are ${size} ${nlink}, not ${want}`);
      }
      let end = 0;
      for (const extent of await file.fiemap({ sync: true })) {
        if (extent.logical < end) throw new Error("extents are not in order");
        end = extent.logical + extent.length;
      }
      await fileHolds(file);
      await this.#readBack(file, node, 0, Math.min(size + 1, 2 * NEAR));
    });
    const dir = this.#any(this.#dirs);
    const names: string[] = [];
    for (const { name } of this.#fs.readDirSync(pathOf(dir) || "/")) {
      names.push(name);
    }
    const want = [...dir.children.keys()].sort().join("\n");
    if (names.sort().join("\n") === want) return;
    throw new Error(`${pathOf(dir)} holds ${names}`);
  }

  /** Opens a file that stays open, maybe beyond its last name. */
  async open(): Promise<void> {
    const entry = this.#entry("file");
    if (entry === null || this.#handles.length > 6) return;
    const node = this.#nodeAt(entry)!;
    this.#note(`open ${this.#path(entry)}`);
    const file = await this.#fs.open(this.#path(entry), READ_WRITE);
    this.#handles.push({ file, node });
    if (this.#below(2) === 0) await this.#remove(entry);
  }
  async close(): Promise<void> {
    if (this.#handles.length === 0) return;
    const i = this.#below(this.#handles.length);
    const [{ file, node }] = this.#handles.splice(i, 1) as [Handle];
    this.#note(`close ${file.path}`);
    await this.#readBack(file, node, 0, Math.min(node.content.size + 1, NEAR));
    await file[Symbol.asyncDispose]();
  }
  async #closeAll(): Promise<void> {
    while (this.#handles.length > 0) await this.close();
  }

  async fsync(): Promise<void> {
    await this.#withFile(READ_WRITE, async (file, _node, path) => {
      const data = this.#below(2) === 0;
      const sync = () => data ? file.syncData() : file.sync();
      await this.#expect("", `fsync ${path}`, sync);
    });
  }
  async sync(): Promise<void> {
    await this.#expect("", "sync", () => this.#fs.sync());
  }
  async dropCache(): Promise<void> {
    await this.#withFile(READ_WRITE, async (file, _node, path) => {
      this.#note(`drop the cache of ${path}`);
      await file.sync();
      await file.advise("dontneed");
    });
  }
}
