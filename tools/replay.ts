/**
 * Replays op traces and prints what the stack answered, a line an operation, in
 * the form in which the kernel's answers to the same traces were recorded.
 *
 * ```sh
 * deno task replay --iomap TRACE.jsonl > got.jsonl
 * deno task replay --iomap --out DIR TRACE.jsonl...
 * ```
 *
 * @module
 */

import { createHash } from "node:crypto";
import { parseArgs } from "node:util";
import {
  iomapFlagNames,
  iomapOpFlagNames,
  type IomapTraceEvent,
  iomapTypeName,
  setIomapTracer,
} from "../iomap/mod.ts";
import {
  createNvme,
  FALLOC_FL_COLLAPSE_RANGE,
  FALLOC_FL_INSERT_RANGE,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_UNSHARE_RANGE,
  FALLOC_FL_ZERO_RANGE,
  FIEMAP_EXTENT_DATA_INLINE,
  FIEMAP_EXTENT_DELALLOC,
  FIEMAP_EXTENT_LAST,
  FIEMAP_EXTENT_MERGED,
  FIEMAP_EXTENT_NOT_ALIGNED,
  FIEMAP_EXTENT_SHARED,
  FIEMAP_EXTENT_UNKNOWN,
  FIEMAP_EXTENT_UNWRITTEN,
  FsError,
  type FsFile,
  MemoryFault,
  type MemoryMapping,
  mkfsXfs,
  type Mount,
  mount,
  type NvmeDevice,
  type RangeOptions,
  SEEK_DATA,
  SEEK_HOLE,
  swapHeader,
  VirtualClock,
  xfs,
} from "../mod.ts";
import { CommandLine } from "./mkfs.ts";

const USAGE =
  `usage: replay [--iomap] [--fs xfs] [--device PRESET] [--mount OPTIONS]
              TRACE.jsonl > RESULT.jsonl
       replay [options] --out DIR TRACE.jsonl...

  --iomap   add the iomap walks: each mapping that was asked for
  --out     write DIR/<trace file's name> for each of several traces
  --fs, --device, --mount   override what the trace's header says
`;

/** First line of a trace. */
interface Header {
  trace?: string;
  fs: string;
  blocksize?: number;
  size?: number;
  mkfs?: string[];
  mount?: string;
}

/** One operation; which fields there are depends on `op`. */
interface Op {
  op: string;
  fd: string;
  src: string;
  src_off: number;
  map: string;
  path: string;
  to: string;
  off: number;
  len: number;
  seed?: number;
  fill?: number;
  misalign?: number;
  flags?: string[] | number;
  mode?: string[];
  whence?: string;
  sync?: boolean;
  write?: boolean;
  shared?: boolean;
  mkswap?: boolean;
}

/** An answer: `ret` is a number or the name of an errno. */
type Answer = { ret: number | string } & Record<string, unknown>;

/** Options that replace the header's. */
export interface Overrides {
  fs?: string | undefined;
  device?: string | undefined;
  mount?: string | undefined;
}

// Between two operations of a recorded trace at least one clock tick passed.
const TICK = 4_000_000;

const FALLOC: Record<string, number> = {
  keep_size: FALLOC_FL_KEEP_SIZE,
  punch_hole: FALLOC_FL_PUNCH_HOLE,
  collapse_range: FALLOC_FL_COLLAPSE_RANGE,
  zero_range: FALLOC_FL_ZERO_RANGE,
  insert_range: FALLOC_FL_INSERT_RANGE,
  unshare_range: FALLOC_FL_UNSHARE_RANGE,
};

const FIEMAP_FLAGS: [number, string][] = [
  [FIEMAP_EXTENT_UNKNOWN, "unknown"],
  [FIEMAP_EXTENT_DELALLOC, "delalloc"],
  [FIEMAP_EXTENT_NOT_ALIGNED, "not_aligned"],
  [FIEMAP_EXTENT_DATA_INLINE, "inline"],
  [FIEMAP_EXTENT_UNWRITTEN, "unwritten"],
  [FIEMAP_EXTENT_MERGED, "merged"],
  [FIEMAP_EXTENT_SHARED, "shared"],
  [FIEMAP_EXTENT_LAST, "last"],
];

/** The data that a trace's `seed` stands for: a byte for each file offset. */
function pattern(seed: number, off: number, len: number): Uint8Array {
  return Uint8Array.from({ length: len }, (_, i) => {
    const p = off + i;
    const high = Math.floor(p / 256) & 255;
    const higher = Math.floor(p / 65536) & 255;
    return seed * 131 + (p & 255) * 7 + high * 13 + higher * 29;
  });
}

/** A buffer that begins `misalign` bytes past a page border. */
function buffer(len: number, misalign = 0): Uint8Array {
  return new Uint8Array(new ArrayBuffer(len + misalign), misalign, len);
}

function md5(data: Uint8Array): string {
  return createHash("md5").update(data).digest("hex");
}

function flagNames(op: Op, otherwise: string[] = []): string[] {
  return Array.isArray(op.flags) ? op.flags : otherwise;
}

function namesOf(flags: string): string[] {
  return flags === "" ? [] : flags.split("|");
}

/** The walks of one operation, gathered from the iomap tracepoints. */
export class Walks {
  #entries: Record<string, unknown>[] = [];

  start(): void {
    setIomapTracer((event) => this.#add(event));
  }

  stop(): void {
    setIomapTracer(null);
  }

  /** What was walked since the last call. */
  take(): Record<string, unknown>[] {
    const entries = this.#entries.filter((e) => "map" in e);
    this.#entries = [];
    return entries;
  }

  #add(event: IomapTraceEvent): void {
    if (event.name === "iomap_iter") {
      this.#entries.push({
        // As the kernel's answers have it.
        caller: event.caller.replace(/^_+/, ""),
        pos: event.pos,
        flags: namesOf(iomapOpFlagNames(event.flags)),
      });
      return;
    }
    const last = this.#entries.at(-1);
    if (
      last &&
      (event.name === "iomap_iter_dstmap" ||
        event.name === "iomap_iter_srcmap")
    ) {
      last[event.name === "iomap_iter_dstmap" ? "map" : "src"] = {
        offset: event.offset,
        length: event.length,
        type: iomapTypeName(event.type),
        flags: namesOf(iomapFlagNames(event.flags)),
      };
    }
  }
}

/** A stack made for one trace. */
class Replay {
  readonly #clock = new VirtualClock();
  readonly #device: NvmeDevice;
  readonly #mountOptions: string;
  readonly #files = new Map<string, FsFile>();
  readonly #maps = new Map<string, MemoryMapping>();
  readonly #walks: Walks | null;
  #fs!: Mount;

  private constructor(
    header: Header,
    overrides: Overrides,
    walks: Walks | null,
  ) {
    this.#walks = walks;
    const type = overrides.fs ?? header.fs;
    if (type !== "xfs") {
      throw new FsError(95, `No file system of type "${type}" here`);
    }
    this.#mountOptions = overrides.mount ?? header.mount ?? "allocsize=4k";
    this.#device = createNvme(this.#clock, {
      size: header.size ?? 512 * 2 ** 20,
      preset: overrides.device ?? "null",
      atomics: { awupf: 0 },
    });
    // The kernel's answers come from loop devices, which keep nothing larger than a
    // sector whole, and read ahead this far.
    this.#device.bdi.raPages = 640;
    this.#device.bdi.ioPages = 320;
  }

  static async make(
    header: Header,
    overrides: Overrides,
    walks: Walks | null,
  ): Promise<Replay> {
    const replay = new Replay(header, overrides, walks);
    const mkfs = new CommandLine();
    const blockSize = `size=${header.blocksize ?? 4096}`;
    // Sectors as a loop device has them.
    const words = ["xfs", "trace", "-b", blockSize, "-s", "size=512"];
    mkfs.parse([...words, ...header.mkfs ?? []]);
    await mkfsXfs(replay.#device, mkfs.options);
    await replay.#mount();
    return replay;
  }

  async #mount(): Promise<void> {
    this.#fs = await mount(this.#device, xfs, { options: this.#mountOptions });
  }

  async #unmount(): Promise<void> {
    for (const map of this.#maps.values()) map.unmap();
    this.#maps.clear();
    for (const file of this.#files.values()) file.close();
    this.#files.clear();
    await this.#fs.unmount();
  }

  async close(): Promise<void> {
    await this.#unmount();
    this.#device.close();
  }

  async run(op: Op): Promise<Answer> {
    await this.#clock.sleep(TICK);
    const method = Object.hasOwn(this.#ops, op.op) ? this.#ops[op.op] : null;
    if (!method) return { ret: "ENOSYS" };
    if (op.fd !== undefined && op.op !== "open" && !this.#files.has(op.fd)) {
      return { ret: "EBADF" };
    }
    if (op.src !== undefined && !this.#files.has(op.src)) {
      return { ret: "EBADF" };
    }
    if (op.map !== undefined && op.op !== "mmap" && !this.#maps.has(op.map)) {
      return { ret: "EBADF" };
    }
    try {
      return { ret: 0, ...await method(op) };
    } catch (e) {
      if (e instanceof FsError) return { ret: e.code };
      throw e;
    }
  }

  #file(op: Op): FsFile {
    return this.#files.get(op.fd)!;
  }

  /** The range of `op.src` that an operation shares or copies. */
  #range(op: Op): [FsFile, RangeOptions] {
    const { src_off: srcOffset = 0, off: offset = 0, len: length } = op;
    return [this.#files.get(op.src)!, { srcOffset, offset, length }];
  }

  /** Makes a swap file of a file that is large enough for one, as mkswap(8). */
  async #mkswap(path: string): Promise<void> {
    const { size } = await this.#fs.stat(path);
    const pages = Math.floor(size / 4096);
    if (pages < 10) return;
    const file = await this.#fs.open(path, { read: true, write: true });
    await file.write(swapHeader(pages), { at: 0 });
    await file.sync();
    file.close();
    // What mkswap did is not recorded: it is another process.
    this.#walks?.take();
  }

  readonly #ops: Record<
    string,
    (op: Op) => Promise<Partial<Answer> | void> | Partial<Answer> | void
  > = {
    open: async (op) => {
      const flags = new Set(flagNames(op, ["rdwr", "creat"]));
      const file = await this.#fs.open(op.path, {
        read: !flags.has("wronly"),
        write: !flags.has("rdonly"),
        create: flags.has("creat"),
        createNew: flags.has("creat") && flags.has("excl"),
        truncate: flags.has("trunc"),
        append: flags.has("append"),
        direct: flags.has("direct"),
        sync: flags.has("sync"),
        dsync: flags.has("dsync"),
        mode: 0o644,
      });
      this.#files.get(op.fd)?.close();
      this.#files.set(op.fd, file);
    },
    close: (op) => {
      this.#file(op).close();
      this.#files.delete(op.fd);
    },
    pwrite: async (op) => {
      const data = buffer(op.len, op.misalign);
      if (op.fill !== undefined) data.fill(op.fill);
      else data.set(pattern(op.seed ?? 1, op.off, op.len));
      const flags = Object.fromEntries(flagNames(op).map((f) => [f, true]));
      return {
        ret: await this.#file(op).write(data, { at: op.off, ...flags }),
      };
    },
    pread: async (op) => {
      const data = buffer(op.len, op.misalign);
      const flags = Object.fromEntries(flagNames(op).map((f) => [f, true]));
      const n = await this.#file(op).read(data, { at: op.off, ...flags }) ?? 0;
      return { ret: n, md5: md5(data.subarray(0, n)) };
    },
    ftruncate: (op) => this.#file(op).truncate(op.len),
    fallocate: (op) => {
      const names = op.mode ?? [];
      if (!names.every((n) => Object.hasOwn(FALLOC, n))) {
        return { ret: "ENOSYS" };
      }
      const mode = names.reduce((m, n) => m | FALLOC[n]!, 0);
      return this.#file(op).fallocate(mode, op.off, op.len);
    },
    fsync: (op) => this.#file(op).sync(),
    fdatasync: (op) => this.#file(op).syncData(),
    sync_file_range: (op) =>
      this.#file(op).syncRange(
        op.off,
        op.len,
        typeof op.flags === "number" ? op.flags : 7,
      ),
    sync: () => this.#fs.sync(),
    drop_cache: (op) =>
      this.#file(op).advise("dontneed", op.off ?? 0, op.len ?? 0),
    seek: async (op) => {
      const whence = op.whence === "data" ? SEEK_DATA : SEEK_HOLE;
      return { ret: await this.#file(op).seek(op.off, whence) };
    },
    stat: async (op) => {
      const info = op.fd === undefined
        ? await this.#fs.lstat(op.path)
        : await this.#file(op).stat();
      return { size: info.size, nlink: info.nlink, blocks: info.blocks };
    },
    statx: async (op) => {
      const info = await this.#file(op).stat();
      return {
        size: info.size,
        dio_mem_align: info.dioMemAlign,
        dio_offset_align: info.dioOffsetAlign,
        atomic_min: info.atomicWriteUnitMin,
        atomic_max: info.atomicWriteUnitMax,
        atomic_segs: info.atomicWriteSegmentsMax,
        atomic_max_opt: info.atomicWriteUnitMaxOpt,
      };
    },
    fiemap: async (op) => {
      const rows = await this.#file(op).fiemap({
        start: op.off ?? 0,
        ...(op.len === undefined ? {} : { length: op.len }),
        sync: op.sync ?? false,
        max: 2048,
      });
      return { extents: joinExtents(rows) };
    },
    clone: (op) => this.#file(op).cloneRange(...this.#range(op)),
    dedupe: async (op) => {
      try {
        return { ret: await this.#file(op).dedupeRange(...this.#range(op)) };
      } catch (e) {
        if (e instanceof FsError && e.code === "EBADE") {
          return { ret: "DIFFERS" };
        }
        throw e;
      }
    },
    copy: async (op) => ({
      ret: await this.#file(op).copyRange(...this.#range(op)),
    }),
    mmap: async (op) => {
      const map = await this.#file(op).mmap({
        offset: op.off ?? 0,
        length: op.len,
        write: op.write ?? true,
        private: !(op.shared ?? true),
      });
      this.#maps.set(op.map, map);
    },
    munmap: (op) => {
      this.#maps.get(op.map)!.unmap();
      this.#maps.delete(op.map);
    },
    mread: async (op) => {
      const data = new Uint8Array(op.len);
      const map = this.#maps.get(op.map)!;
      const n = await moved(map.load(op.off, data), op);
      return { ret: n, md5: md5(data.subarray(0, n)) };
    },
    mwrite: async (op) => {
      const data = op.fill === undefined
        ? pattern(op.seed ?? 1, op.off, op.len)
        : new Uint8Array(op.len).fill(op.fill);
      const map = this.#maps.get(op.map)!;
      return { ret: await moved(map.store(op.off, data), op) };
    },
    msync: (op) => {
      const map = this.#maps.get(op.map)!;
      return map.sync({ offset: op.off ?? 0, length: op.len ?? map.length });
    },
    swapon: async (op) => {
      if (op.mkswap ?? true) await this.#mkswap(op.path);
      const { pages } = await this.#fs.swapon(op.path);
      await this.#fs.swapoff(op.path);
      return { pages };
    },
    mkdir: (op) => this.#fs.mkdir(op.path),
    rmdir: (op) => this.#fs.rmdir(op.path),
    unlink: (op) => this.#fs.unlink(op.path),
    link: (op) => this.#fs.link(op.path, op.to),
    rename: (op) => this.#fs.rename(op.path, op.to),
    readdir: async (op) => {
      const names: string[] = [];
      for await (const e of this.#fs.readDir(op.path ?? ".")) {
        names.push(e.name);
      }
      return { names: names.sort() };
    },
    remount: async () => {
      await this.#unmount();
      await this.#mount();
    },
  };
}

/** Bytes that an access got done before it met memory with nothing behind it.
 * @throws MemoryFault if that is none. */
async function moved(access: Promise<void>, op: Op): Promise<number> {
  try {
    await access;
    return op.len;
  } catch (e) {
    if (!(e instanceof MemoryFault) || e.offset === op.off) throw e;
    return e.offset - op.off;
  }
}

/** Rows that follow one another and are alike, joined, as the record has them. */
function joinExtents(
  rows: { logical: number; length: number; flags: number }[],
): [number, number, string[]][] {
  const joined: [number, number, string[]][] = [];
  for (const { logical, length, flags } of rows) {
    const names = FIEMAP_FLAGS.filter(([bit]) => flags & bit).map(([, n]) => n);
    const last = joined.at(-1);
    const alike = last && last[0] + last[1] === logical &&
      last[2].join() === names.filter((n) => n !== "last").join();
    if (alike) {
      last[1] += length;
      last[2] = names;
    } else joined.push([logical, length, names]);
  }
  return joined;
}

/** Lines of a trace file, parsed; a line that is no JSON is named. */
async function readTrace(path: string): Promise<[Header, Op[]]> {
  const text = await Deno.readTextFile(path);
  const lines: unknown[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (!line.trim() || line.startsWith("//")) continue;
    try {
      lines.push(JSON.parse(line));
    } catch (e) {
      throw new Error(`${path}:${i + 1}: not JSON: ${(e as Error).message}`);
    }
  }
  const [header, ...ops] = lines as [Header, ...Op[]];
  if (typeof header?.fs !== "string") {
    throw new Error(`${path}: the first line is no header with "fs"`);
  }
  return [header, ops];
}

/**
 * Replays one trace on a stack of its own.
 *
 * @param path The trace file.
 * @param overrides What replaces the header's.
 * @param walks Gathers the iomap walks; null for none.
 * @returns The result lines.
 */
export async function replay(
  path: string,
  overrides: Overrides,
  walks: Walks | null,
): Promise<string> {
  const [header, ops] = await readTrace(path);
  const stack = await Replay.make(header, overrides, walks);
  const out: string[] = [];
  walks?.start();
  for (const [i, op] of ops.entries()) {
    walks?.take();
    const answer = await stack.run(op);
    const iomap = walks?.take() ?? [];
    const line = { i, ...answer, ...(iomap.length > 0 ? { iomap } : {}) };
    out.push(JSON.stringify(line));
  }
  walks?.stop();
  await stack.close();
  return out.join("\n") + "\n";
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      iomap: { type: "boolean" },
      out: { type: "string" },
      fs: { type: "string" },
      device: { type: "string" },
      mount: { type: "string" },
      help: { type: "boolean" },
    },
  });
  if (values.help || positionals.length === 0) {
    console.error(USAGE);
    return values.help ? 0 : 1;
  }
  if (positionals.length > 1 && values.out === undefined) {
    console.error("replay: several traces need --out DIR");
    return 1;
  }
  if (values.out !== undefined) {
    await Deno.mkdir(values.out, { recursive: true });
  }
  const walks = values.iomap ? new Walks() : null;
  for (const [i, path] of positionals.entries()) {
    const text = await replay(path, values, walks);
    if (values.out === undefined) await write(text);
    else {
      const name = path.replace(/^.*[\/\\]/, "");
      await Deno.writeTextFile(`${values.out}/${name}`, text);
      console.error(`[${i + 1}/${positionals.length}] ${name}`);
    }
  }
  return 0;
}

async function write(text: string): Promise<void> {
  const data = new TextEncoder().encode(text);
  for (let n = 0; n < data.length;) {
    n += await Deno.stdout.write(data.subarray(n));
  }
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (e) {
    console.error(`replay: ${(e as Error).message}`);
    Deno.exitCode = 1;
  }
}
