/**
 * The stores that a benchmark holds side by side, behind one small interface:
 * one open file that takes positioned reads and writes.
 */
import * as nodeFs from "node:fs";
import { memfs } from "npm:memfs@4.80.1";
import {
  createNvme,
  type FsFile,
  mkfsXfs,
  mount,
  VirtualClock,
  xfs,
} from "../../mod.ts";

/** Bytes of a KiB. */
export const KiB = 1024;
/** Bytes of a MiB. */
export const MiB = 1024 * KiB;

/** One open file of one store. */
export interface Peer {
  read(buffer: Uint8Array, at: number): void;
  write(buffer: Uint8Array, at: number): void;
  /** Makes the file empty again. */
  clear(): void;
}

class IomapPeer implements Peer {
  readonly #file: FsFile;
  // Read and write keep their options: a caller's literal would be allocated.
  readonly #options = { at: 0 };

  constructor(file: FsFile) {
    this.#file = file;
  }
  read(buffer: Uint8Array, at: number): void {
    this.#options.at = at;
    this.#file.readSync(buffer, this.#options);
  }
  write(buffer: Uint8Array, at: number): void {
    this.#options.at = at;
    this.#file.writeSync(buffer, this.#options);
  }
  clear(): void {
    this.#file.truncateSync(0);
  }
}

/** The positioned calls that node:fs and memfs share. */
interface NodeLike {
  openSync(path: string, flags: string): number;
  readSync(
    fd: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    at: number,
  ): number;
  writeSync(
    fd: number,
    buffer: Uint8Array,
    offset: number,
    length: number,
    at: number,
  ): number;
  ftruncateSync(fd: number, len: number): void;
}

class NodePeer implements Peer {
  readonly #fs: NodeLike;
  readonly #fd: number;

  constructor(fs: NodeLike, path: string) {
    this.#fs = fs;
    this.#fd = fs.openSync(path, "w+");
  }
  read(buffer: Uint8Array, at: number): void {
    this.#fs.readSync(this.#fd, buffer, 0, buffer.length, at);
  }
  write(buffer: Uint8Array, at: number): void {
    this.#fs.writeSync(this.#fd, buffer, 0, buffer.length, at);
  }
  clear(): void {
    this.#fs.ftruncateSync(this.#fd, 0);
  }
}

/** The floor: one copy from or to memory. */
class CopyPeer implements Peer {
  readonly #memory: Uint8Array;

  constructor(size: number) {
    this.#memory = new Uint8Array(size);
  }
  read(buffer: Uint8Array, at: number): void {
    buffer.set(this.#memory.subarray(at, at + buffer.length));
  }
  write(buffer: Uint8Array, at: number): void {
    this.#memory.set(buffer, at);
  }
  clear(): void {}
}

/** A fresh XFS-like file system on a `null` device of 2 GiB. */
export async function iomapFile(direct = false): Promise<FsFile> {
  const device = createNvme(new VirtualClock(), {
    size: 2048 * MiB,
    preset: "null",
  });
  await mkfsXfs(device);
  const fs = await mount(device, xfs, { memory: 4096 * MiB });
  return await fs.open("/file", {
    read: true,
    write: true,
    create: true,
    direct,
  });
}

/** Where node:fs works: tmpfs, so that no disk is measured. */
const TMPFS = "/dev/shm";

/**
 * All four peers, each with a file of `size` bytes written once.
 *
 * @param capacity Bytes that the file may grow to.
 */
export async function peers(
  size: number,
  capacity = size,
): Promise<[string, Peer][]> {
  const path = Deno.makeTempFileSync({ dir: TMPFS, prefix: "iomap-bench-" });
  const all: [string, Peer][] = [
    ["iomap", new IomapPeer(await iomapFile())],
    ["memfs", new NodePeer(memfs({}).fs as unknown as NodeLike, "/file")],
    ["node:fs", new NodePeer(nodeFs as unknown as NodeLike, path)],
    ["copy", new CopyPeer(capacity)],
  ];
  Deno.removeSync(path);
  const chunk = new Uint8Array(MiB).fill(0x5a);
  // In turn, so that no peer has all of its memory from where it is slow: the
  // places that the system gives out differ by half.
  for (let at = 0; at < size; at += MiB) {
    for (const [, peer] of all) peer.write(chunk, at);
  }
  return all;
}
