/**
 * Extended attributes as the VFS asks for them: names with their prefixes.
 *
 * Kernel counterpart: fs/xfs/xfs_xattr.c.
 *
 * @module
 */

import { EIO, ENOSPC } from "../../lib/errno.ts";
import { andThen, type MaybePromise } from "../../lib/maybe-promise.ts";
import { type Inode, XATTR_CREATE, XATTR_REPLACE } from "../fs.ts";
import { freeSpace } from "./icache.ts";
import type { XfsInode } from "./inode.ts";
import { xfsAttrGet, xfsAttrList, xfsAttrSet } from "./libxfs/attr.ts";
import { XFS_ATTR_ROOT, XFS_ATTR_SECURE } from "./libxfs/format.ts";
import { decodeName, encodeName } from "./name.ts";

/** Prefixes, and the flags that stand for them. */
const NAMESPACES: readonly (readonly [prefix: string, flags: number])[] = [
  ["user.", 0],
  ["trusted.", XFS_ATTR_ROOT],
  ["security.", XFS_ATTR_SECURE],
];

/** Splits a name that the VFS has checked. */
function splitName(name: string): { bytes: Uint8Array; flags: number } {
  for (const [prefix, flags] of NAMESPACES) {
    if (!name.startsWith(prefix)) continue;
    return { bytes: encodeName(name.slice(prefix.length)), flags };
  }
  throw new Error(`BUG: attribute ${name} has no prefix`);
}

/** Kernel: `xfs_xattr_get`. */
export function getXattr(
  inode: Inode,
  name: string,
): MaybePromise<Uint8Array | number> {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const { bytes, flags } = splitName(name);
  return xfsAttrGet(ip, bytes, flags);
}

/** Kernel: `xfs_xattr_set`. */
export function setXattr(
  inode: Inode,
  name: string,
  value: Uint8Array | null,
  xattrFlags: number,
): MaybePromise<number> {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const { bytes, flags } = splitName(name);
  const create = (xattrFlags & XATTR_CREATE) !== 0;
  // Of both the first counts.
  const replace = !create && (xattrFlags & XATTR_REPLACE) !== 0;
  const set = () => xfsAttrSet(ip, bytes, flags, value, create, replace);
  const done = set();
  if (done !== -ENOSPC) return done;
  return andThen(freeSpace(ip.mount), set);
}

/** Kernel: `xfs_vn_listxattr`. */
export function listXattr(inode: Inode): MaybePromise<string[] | number> {
  const ip = inode as XfsInode;
  if (ip.mount.dead) return -EIO;
  const listed = xfsAttrList(ip);
  if (typeof listed === "number") return listed;
  // What else there may be is for the file system itself.
  return listed.filter(({ flags }) => prefixOf(flags) !== undefined)
    .map(({ name, flags }) => prefixOf(flags)! + decodeName(name));
}

function prefixOf(flags: number): string | undefined {
  return NAMESPACES.find((entry) => entry[1] === flags)?.[0];
}
