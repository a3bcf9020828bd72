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
import { type Inode, XATTR_CREATE, XATTR_REPLACE } from "./fs.ts";
import { inodeLock, inodeUnlock, isDir, isReg } from "./inode.ts";
import { byteLength, HALF_PAIR } from "./namei.ts";

/** Longest name with its prefix, bytes. */
const XATTR_NAME_MAX = 255;
/** Longest value, bytes. */
const XATTR_SIZE_MAX = 65536;

const PREFIXES = ["user.", "trusted.", "security."];

/** Whether a name can be one, or the errno (kernel: `import_xattr_name`). */
function checkName(inode: Inode, name: string): number {
  if (name === "" || byteLength(name, XATTR_NAME_MAX) > XATTR_NAME_MAX) {
    return -ERANGE;
  }
  if (name.includes("\0")) return -EINVAL;
  if (HALF_PAIR.test(name)) return -EILSEQ;
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
 * @param name With its prefix: "user.", "trusted." or "security.".
 * @returns It; -ENODATA if there is none; -ERANGE for a name that is empty or above 255
 *   bytes; -EOPNOTSUPP for another prefix, or where the file system has no attributes;
 *   -EINVAL for a prefix alone, or a NUL in it; -EILSEQ for half a surrogate pair that
 *   stands for no byte.
 */
export function vfsGetxattr(
  inode: Inode,
  name: string,
): MaybePromise<Uint8Array | number> {
  const wrong = checkName(inode, name);
  if (wrong !== 0) return wrong;
  if (!mayHave(inode, name)) return -ENODATA;
  return inode.iop.getXattr!(inode, name);
}

/**
 * Sets an attribute, or removes it (kernel: `vfs_setxattr`, `vfs_removexattr`).
 *
 * @param value null removes it.
 * @param flags `XATTR_CREATE` or `XATTR_REPLACE`.
 * @returns 0; as {@linkcode vfsGetxattr}, and -E2BIG for a value above 64 KiB; -EEXIST
 *   and -ENODATA as `flags` ask; -EPERM for "user." on what is neither file nor
 *   directory; -EINVAL for other flags; -EROFS; -ENOSPC.
 */
export function vfsSetxattr(
  inode: Inode,
  name: string,
  value: Uint8Array | null,
  flags: number,
): MaybePromise<number> {
  if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) !== 0) return -EINVAL;
  const wrong = checkName(inode, name);
  if (wrong !== 0) return wrong;
  if (value !== null && value.length > XATTR_SIZE_MAX) return -E2BIG;
  if (inode.sb.readOnly) return -EROFS;
  if (!mayHave(inode, name)) return -EPERM;
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
