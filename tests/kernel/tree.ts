/**
 * All that a program can see of a tree of files, as lines that can be compared.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { Libc } from "./libc.ts";

/** One file, directory or whatever it is. */
export interface TreeNode {
  /** "file", "dir", "symlink", "fifo", "chr", "blk", "sock". */
  kind: string;
  /** Permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** Bytes; of directories 0, as theirs is the format's affair. */
  size: number;
  /** Of a file's bytes, or a link's target. */
  digest: string;
  /** Names and digests of values. */
  xattrs: [string, string][];
}

/** Digest of bytes. */
export function digest(...parts: Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex").slice(0, 16);
}

function kindOf(info: Deno.FileInfo): string {
  if (info.isDirectory) return "dir";
  if (info.isSymlink) return "symlink";
  if (info.isFile) return "file";
  if (info.isFifo) return "fifo";
  if (info.isCharDevice) return "chr";
  return info.isBlockDevice ? "blk" : "sock";
}

function digestOf(path: string, kind: string): string {
  if (kind === "symlink") {
    return digest(new TextEncoder().encode(Deno.readLinkSync(path)));
  }
  if (kind !== "file") return "";
  using file = Deno.openSync(path, { read: true });
  const hash = createHash("sha256");
  const piece = new Uint8Array(2 ** 20);
  for (;;) {
    const n = file.readSync(piece);
    if (n === null) break;
    hash.update(piece.subarray(0, n));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Looks at a tree of the host: what is below a directory, by path. */
export function readTree(libc: Libc, root: string): Map<string, TreeNode> {
  const tree = new Map<string, TreeNode>();
  const visit = (path: string, name: string) => {
    const info = Deno.lstatSync(path);
    const kind = kindOf(info);
    tree.set(name, {
      kind,
      mode: (info.mode ?? 0) & 0o7777,
      nlink: info.nlink ?? 0,
      uid: info.uid ?? 0,
      gid: info.gid ?? 0,
      size: kind === "dir" ? 0 : info.size,
      digest: digestOf(path, kind),
      xattrs: [...libc.xattrs(path)].map(([n, v]) => [n, digest(v)]),
    });
    if (kind !== "dir") return;
    const names = [...Deno.readDirSync(path)].map((entry) => entry.name).sort();
    for (const child of names) visit(`${path}/${child}`, `${name}/${child}`);
  };
  visit(root, "");
  return tree;
}

/** What differs between two trees, a line each. */
export function compareTrees(
  a: Map<string, TreeNode>,
  b: Map<string, TreeNode>,
): string[] {
  const lines: string[] = [];
  for (const [path, node] of a) {
    const other = b.get(path);
    if (other === undefined) lines.push(`${path}: only in the first`);
    else if (JSON.stringify(node) !== JSON.stringify(other)) {
      lines.push(
        `${path}: ${JSON.stringify(node)}, not ${JSON.stringify(other)}`,
      );
    }
  }
  for (const path of b.keys()) {
    if (!a.has(path)) lines.push(`${path}: only in the second`);
  }
  return lines;
}
