/**
 * Extended attributes: what may be asked of whom.
 *
 * Kernel counterpart: fs/xattr.c.
 *
 * @module
 */

import {
  E2BIG,
  EILSEQ,
  EINVAL,
  ENODATA,
  EOPNOTSUPP,
  EPERM,
  ERANGE,
  EROFS,
} from "../lib/errno.ts";
import { andThen, type MaybePromise } from "../lib/maybe-promise.ts";
import type { Inode } from "./fs.ts";
import { inodeLock, inodeUnlock, isDir, isReg } from "./inode.ts";
import { byteLength, HALF_PAIR } from "./namei.ts";

/** Longest name with its prefix, bytes. */
const XATTR_NAME_MAX = 255;
/** Longest value, bytes. */
const XATTR_SIZE_MAX = 65536;

const PREFIXES = ["user.", "trusted.", "security."];

/**
 * Looks at a name before anybody looks at the file (kernel: `import_xattr_name`).
 *
 * @returns 0; -ERANGE for a name that is empty or above 255 bytes; -EINVAL for a NUL in it;
 *   -EILSEQ for half a surrogate pair that stands for no byte.
 */
export function importXattrName(name: string): number {
  if (name === "" || byteLength(name, XATTR_NAME_MAX) > XATTR_NAME_MAX) {
    return -ERANGE;
  }
  if (name.includes("\0")) return -EINVAL;
  return HALF_PAIR.test(name) ? -EILSEQ : 0;
}

/**
 * The same for name and value of an attribute to be set (kernel: `setxattr_copy`).
 *
 * @param size Bytes of the value.
 * @returns As {@linkcode importXattrName}; -E2BIG for a value above 64 KiB.
 */
export function setxattrCopy(name: string, size: number): number {
  return importXattrName(name) || (size > XATTR_SIZE_MAX ? -E2BIG : 0);
}

/** Whether the file system has such attributes, or the errno (kernel:
 * `xattr_resolve_name`). */
function resolveName(inode: Inode, name: string): number {
  const prefix = PREFIXES.find((p) => name.startsWith(p));
  if (prefix === undefined) return -EOPNOTSUPP;
  if (name === prefix) return -EINVAL;
  return inode.iop.setXattr === undefined ? -EOPNOTSUPP : 0;
}

/** Only files and directories have attributes of users (kernel:
 * `xattr_permission`). */
function mayHave(inode: Inode, name: string): boolean {
  return !name.startsWith("user.") || isReg(inode) || isDir(inode);
}

/**
 * Value of an attribute (kernel: `vfs_getxattr`).
 *
 * @param name With its prefix: "user.", "trusted." or "security.";
 *   {@linkcode importXattrName} has seen it.
 * @returns It; -ENODATA if there is none; -EOPNOTSUPP for another prefix, or where the file
 *   system has no attributes; -EINVAL for a prefix alone.
 */
export function vfsGetxattr(
  inode: Inode,
  name: string,
): MaybePromise<Uint8Array | number> {
  if (!mayHave(inode, name)) return -ENODATA;
  const wrong = resolveName(inode, name);
  if (wrong !== 0) return wrong;
  return inode.iop.getXattr!(inode, name);
}

/**
 * Sets an attribute, or removes it (kernel: `vfs_setxattr`, `vfs_removexattr`).
 *
 * @param name {@linkcode setxattrCopy} has seen it, and the value.
 * @param value null removes it.
 * @param flags `XATTR_CREATE` or `XATTR_REPLACE`.
 * @returns 0; as {@linkcode vfsGetxattr}, and -EEXIST and -ENODATA as `flags` ask; -EPERM
 *   for "user." on what is neither file nor directory; -EROFS; -ENOSPC.
 */
export function vfsSetxattr(
  inode: Inode,
  name: string,
  value: Uint8Array | null,
  flags: number,
): MaybePromise<number> {
  if (inode.sb.readOnly) return -EROFS;
  if (!mayHave(inode, name)) return -EPERM;
  const wrong = resolveName(inode, name);
  if (wrong !== 0) return wrong;
  return andThen(inodeLock(inode, true), (error) => {
    if (error < 0) return error;
    return andThen(inode.iop.setXattr!(inode, name, value, flags), (set) => {
      inodeUnlock(inode, true);
      return set;
    });
  });
}

/**
 * Names of all attributes (kernel: `vfs_listxattr`).
 *
 * @returns They, with their prefixes, in no order; -EOPNOTSUPP where the file system has
 *   none; -E2BIG if they are longer than 64 KiB together.
 */
export function vfsListxattr(inode: Inode): MaybePromise<string[] | number> {
  if (inode.iop.listXattr === undefined) return -EOPNOTSUPP;
  return andThen(inode.iop.listXattr(inode), (names) => {
    if (typeof names === "number") return names;
    const bytes = names.reduce(
      (n, name) => n + byteLength(name, 0) + 1,
      0,
    );
    return bytes > XATTR_SIZE_MAX ? -E2BIG : names;
  });
}
