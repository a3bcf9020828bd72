/**
 * What a tree holds, as text: a line for each name, equal if and only if the trees are,
 * whoever has read them.
 *
 * @module
 */

import { crc32c } from "../../../lib/crc32c.ts";
import { FsError } from "../../../lib/errno.ts";
import { type FsFile, type Mount, SEEK_DATA, SEEK_HOLE } from "../../../mod.ts";
import { type Node, pathOf, PIECE } from "./tree_model.ts";

/** One file, directory or link as somebody has found it. */
export interface Found {
  path: string;
  /** Kind and permission bits. */
  mode: number;
  nlink: number;
  /** "" for a directory; the target of a link; size and checksum of a file. */
  holds: string;
  /** null if nobody can ask for them. */
  xattrs: Map<string, Uint8Array> | null;
}

const KINDS = { file: 0o100000, dir: 0o040000, link: 0o120000 };

/** Checksums of what of a file is not zero, in any order. */
export class Fingerprint {
  #sum = 0;

  /** @param at A multiple of `PIECE`. @param data Whole pieces, but at the end. */
  add(at: number, data: Uint8Array): void {
    for (let from = 0; from < data.length; from += PIECE) {
      const part = data.subarray(from, from + PIECE);
      if (part.every((byte) => byte === 0)) continue;
      let end = part.length;
      while (part[end - 1] === 0) end--;
      const crc = crc32c(part.subarray(0, end));
      // Pieces change places now and then: each counts by where it is.
      const index = (at + from) / PIECE;
      this.#sum = (this.#sum + Math.imul(crc ^ index, 0x9e3779b1)) >>> 0;
    }
  }

  /** What a line says of a file. */
  holds(size: number): string {
    return `${size} ${this.#sum.toString(16)}`;
  }
}

/** The line of something found. */
function line({ path, mode, nlink, holds, xattrs }: Found): string {
  const attrs = [...xattrs ?? []]
    .map(([name, v]) => `${name}=${v.length}:${crc32c(v).toString(16)}`)
    .sort();
  const what = `${mode.toString(8)} ${nlink} ${holds}`;
  return `${JSON.stringify(path)} ${what} ${attrs.join(" ")}`;
}

/** All lines, in order. */
export function listing(found: Found[]): string[] {
  return found.map(line).sort();
}

/** What is different; "" if nothing. */
export function listingDifference(
  want: readonly string[],
  got: readonly string[],
): string {
  const wanted = new Set(want);
  const gotten = new Set(got);
  const lines = [
    ...want.filter((text) => !gotten.has(text)).map((text) => `- ${text}`),
    ...got.filter((text) => !wanted.has(text)).map((text) => `+ ${text}`),
  ];
  return lines.slice(0, 20).map((text) => text.slice(0, 1000)).join("\n");
}

/** What a tree should hold. */
export function listModel(root: Node): string[] {
  const found: Found[] = [];
  const visit = (path: string, node: Node): void => {
    const { mode, nlink, xattrs } = node;
    found.push({
      path,
      mode: KINDS[node.kind] | mode,
      nlink,
      holds: modelHolds(node),
      xattrs: node.kind === "link" ? null : xattrs,
    });
    for (const [name, child] of node.children) visit(`${path}/${name}`, child);
  };
  visit(pathOf(root), root);
  return listing(found);
}

function modelHolds(node: Node): string {
  if (node.kind === "dir") return "";
  if (node.kind === "link") return node.target;
  const print = new Fingerprint();
  for (const [index, piece] of node.content.pieces) {
    print.add(index * PIECE, piece);
  }
  return print.holds(node.content.size);
}

/** What a mounted file system holds. */
export async function listMount(fs: Mount): Promise<string[]> {
  const found: Found[] = [];
  const visit = async (path: string): Promise<void> => {
    const { mode, nlink, isFile, isDirectory, isSymlink } = await fs.lstat(
      path || "/",
    );
    const one: Found = { path, mode, nlink, holds: "", xattrs: null };
    found.push(one);
    if (isSymlink) one.holds = await fs.readLink(path);
    else one.xattrs = await mountXattrs(fs, path || "/");
    if (isDirectory) {
      for await (const { name } of fs.readDir(path || "/")) {
        await visit(`${path}/${name}`);
      }
    } else if (isFile) {
      using file = await fs.open(path);
      one.holds = await fileHolds(file);
    }
  };
  await visit("");
  return listing(found);
}

async function mountXattrs(
  fs: Mount,
  path: string,
): Promise<Map<string, Uint8Array>> {
  const all = new Map<string, Uint8Array>();
  for (const name of await fs.listXattrs(path)) {
    all.set(name, await fs.getXattr(path, name));
  }
  return all;
}

/** Size and checksum of an open file. */
export async function fileHolds(file: FsFile): Promise<string> {
  const print = new Fingerprint();
  const buffer = new Uint8Array(256 * PIECE);
  const { size } = file.statSync();
  for (let at = 0; at < size;) {
    const from = await seekOr(file, at, SEEK_DATA, size);
    const to = await seekOr(file, from, SEEK_HOLE, size);
    // A page at the end of the file may be cached only in part.
    at = from - from % PIECE;
    while (at < to) {
      const n = await readFull(file, at, buffer);
      print.add(at, buffer.subarray(0, n));
      at += buffer.length;
    }
  }
  return print.holds(size);
}

async function seekOr(
  file: FsFile,
  at: number,
  whence: number,
  otherwise: number,
): Promise<number> {
  try {
    return await file.seek(at, whence);
  } catch (error) {
    if (error instanceof FsError && error.code === "ENXIO") return otherwise;
    throw error;
  }
}

/** Reads as much as there is. */
export async function readFull(
  file: FsFile,
  at: number,
  p: Uint8Array,
): Promise<number> {
  for (let done = 0;;) {
    const rest = p.subarray(done);
    if (rest.length === 0) return done;
    const n = await file.read(rest, { at: at + done });
    if (n === null) return done;
    done += n;
  }
}
