/**
 * Linux errno numbers, their names, and the one error class users see.
 *
 * Kernel layers return negative numbers (`-ENOSPC`); only the public face
 * throws, and what it throws is {@linkcode FsError}.
 *
 * Kernel counterpart: include/uapi/asm-generic/errno*.h, include/linux/errno.h.
 *
 * @module
 */

/** Operation not permitted. */
export const EPERM = 1;
/** No such file or directory. */
export const ENOENT = 2;
/** Interrupted system call. */
export const EINTR = 4;
/** Input/output error. */
export const EIO = 5;
/** No such device or address. */
export const ENXIO = 6;
/** Argument list too long. */
export const E2BIG = 7;
/** Bad file descriptor. */
export const EBADF = 9;
/** Resource temporarily unavailable. */
export const EAGAIN = 11;
/** Cannot allocate memory. */
export const ENOMEM = 12;
/** Permission denied. */
export const EACCES = 13;
/** Bad address. */
export const EFAULT = 14;
/** Block device required. */
export const ENOTBLK = 15;
/** Device or resource busy. */
export const EBUSY = 16;
/** File exists. */
export const EEXIST = 17;
/** Invalid cross-device link. */
export const EXDEV = 18;
/** No such device. */
export const ENODEV = 19;
/** Not a directory. */
export const ENOTDIR = 20;
/** Is a directory. */
export const EISDIR = 21;
/** Invalid argument. */
export const EINVAL = 22;
/** Too many open files. */
export const EMFILE = 24;
/** Inappropriate ioctl for device. */
export const ENOTTY = 25;
/** Text file busy. */
export const ETXTBSY = 26;
/** File too large. */
export const EFBIG = 27;
/** No space left on device. */
export const ENOSPC = 28;
/** Illegal seek. */
export const ESPIPE = 29;
/** Read-only file system. */
export const EROFS = 30;
/** Too many links. */
export const EMLINK = 31;
/** Numerical result out of range. */
export const ERANGE = 34;
/** File name too long. */
export const ENAMETOOLONG = 36;
/** Function not implemented. */
export const ENOSYS = 38;
/** Directory not empty. */
export const ENOTEMPTY = 39;
/** Too many levels of symbolic links. */
export const ELOOP = 40;
/** Invalid exchange. */
export const EBADE = 52;
/** Invalid request descriptor. */
export const EBADR = 53;
/** No data available. */
export const ENODATA = 61;
/** Timer expired. */
export const ETIME = 62;
/** Link has been severed. */
export const ENOLINK = 67;
/** Bad message: a checksum is wrong. */
export const EBADMSG = 74;
/** Value too large for defined data type. */
export const EOVERFLOW = 75;
/** Remote address changed. */
export const EREMCHG = 78;
/** Invalid or incomplete multibyte or wide character. */
export const EILSEQ = 84;
/** Protocol not available. */
export const ENOPROTOOPT = 92;
/** Operation not supported. */
export const EOPNOTSUPP = 95;
/** Too many references: cannot splice. */
export const ETOOMANYREFS = 109;
/** Connection timed out. */
export const ETIMEDOUT = 110;
/** Stale file handle. */
export const ESTALE = 116;
/** Structure needs cleaning. */
export const EUCLEAN = 117;
/** Remote I/O error. */
export const EREMOTEIO = 121;
/** Disk quota exceeded. */
export const EDQUOT = 122;
/** Memory page has hardware error. */
export const EHWPOISON = 133;
/** Interrupted, to be restarted (never seen by users). */
export const ERESTARTSYS = 512;
/** I/O queued, completion will come (never seen by users). */
export const EIOCBQUEUED = 529;
/** A metadata structure failed its checks (kernel: an alias of `EUCLEAN`). */
export const EFSCORRUPTED: typeof EUCLEAN = EUCLEAN;

/** Number of each error by its name. */
export const ERRNO: Readonly<Record<ErrnoName, number>> = {
  EPERM,
  ENOENT,
  EINTR,
  EIO,
  ENXIO,
  E2BIG,
  EBADF,
  EAGAIN,
  ENOMEM,
  EACCES,
  EFAULT,
  ENOTBLK,
  EBUSY,
  EEXIST,
  EXDEV,
  ENODEV,
  ENOTDIR,
  EISDIR,
  EINVAL,
  EMFILE,
  ENOTTY,
  ETXTBSY,
  EFBIG,
  ENOSPC,
  ESPIPE,
  EROFS,
  EMLINK,
  ERANGE,
  ENAMETOOLONG,
  ENOSYS,
  ENOTEMPTY,
  ELOOP,
  EBADE,
  EBADR,
  ENODATA,
  ETIME,
  ENOLINK,
  EBADMSG,
  EOVERFLOW,
  EREMCHG,
  EILSEQ,
  ENOPROTOOPT,
  EOPNOTSUPP,
  ETOOMANYREFS,
  ETIMEDOUT,
  ESTALE,
  EUCLEAN,
  EREMOTEIO,
  EDQUOT,
  EHWPOISON,
  ERESTARTSYS,
  EIOCBQUEUED,
};

/** Name of a Linux error, for example `"ENOSPC"`. */
export type ErrnoName =
  | "EPERM"
  | "ENOENT"
  | "EINTR"
  | "EIO"
  | "ENXIO"
  | "E2BIG"
  | "EBADF"
  | "EAGAIN"
  | "ENOMEM"
  | "EACCES"
  | "EFAULT"
  | "ENOTBLK"
  | "EBUSY"
  | "EEXIST"
  | "EXDEV"
  | "ENODEV"
  | "ENOTDIR"
  | "EISDIR"
  | "EINVAL"
  | "EMFILE"
  | "ENOTTY"
  | "ETXTBSY"
  | "EFBIG"
  | "ENOSPC"
  | "ESPIPE"
  | "EROFS"
  | "EMLINK"
  | "ERANGE"
  | "ENAMETOOLONG"
  | "ENOSYS"
  | "ENOTEMPTY"
  | "ELOOP"
  | "EBADE"
  | "EBADR"
  | "ENODATA"
  | "ETIME"
  | "ENOLINK"
  | "EBADMSG"
  | "EOVERFLOW"
  | "EREMCHG"
  | "EILSEQ"
  | "ENOPROTOOPT"
  | "EOPNOTSUPP"
  | "ETOOMANYREFS"
  | "ETIMEDOUT"
  | "ESTALE"
  | "EUCLEAN"
  | "EREMOTEIO"
  | "EDQUOT"
  | "EHWPOISON"
  | "ERESTARTSYS"
  | "EIOCBQUEUED";

const TEXT: Record<ErrnoName, string> = {
  EPERM: "Operation not permitted",
  ENOENT: "No such file or directory",
  EINTR: "Interrupted system call",
  EIO: "Input/output error",
  ENXIO: "No such device or address",
  E2BIG: "Argument list too long",
  EBADF: "Bad file descriptor",
  EAGAIN: "Resource temporarily unavailable",
  ENOMEM: "Cannot allocate memory",
  EACCES: "Permission denied",
  EFAULT: "Bad address",
  ENOTBLK: "Block device required",
  EBUSY: "Device or resource busy",
  EEXIST: "File exists",
  EXDEV: "Invalid cross-device link",
  ENODEV: "No such device",
  ENOTDIR: "Not a directory",
  EISDIR: "Is a directory",
  EINVAL: "Invalid argument",
  EMFILE: "Too many open files",
  ENOTTY: "Inappropriate ioctl for device",
  ETXTBSY: "Text file busy",
  EFBIG: "File too large",
  ENOSPC: "No space left on device",
  ESPIPE: "Illegal seek",
  EROFS: "Read-only file system",
  EMLINK: "Too many links",
  ERANGE: "Numerical result out of range",
  ENAMETOOLONG: "File name too long",
  ENOSYS: "Function not implemented",
  ENOTEMPTY: "Directory not empty",
  ELOOP: "Too many levels of symbolic links",
  EBADE: "Invalid exchange",
  EBADR: "Invalid request descriptor",
  ENODATA: "No data available",
  ETIME: "Timer expired",
  ENOLINK: "Link has been severed",
  EBADMSG: "Bad message",
  EOVERFLOW: "Value too large for defined data type",
  EREMCHG: "Remote address changed",
  EILSEQ: "Invalid or incomplete multibyte or wide character",
  ENOPROTOOPT: "Protocol not available",
  EOPNOTSUPP: "Operation not supported",
  ETOOMANYREFS: "Too many references: cannot splice",
  ETIMEDOUT: "Connection timed out",
  ESTALE: "Stale file handle",
  EUCLEAN: "Structure needs cleaning",
  EREMOTEIO: "Remote I/O error",
  EDQUOT: "Disk quota exceeded",
  EHWPOISON: "Memory page has hardware error",
  ERESTARTSYS: "Interrupted, to be restarted",
  EIOCBQUEUED: "I/O queued, completion will come",
};

const BY_NUMBER = new Map<number, ErrnoName>(
  Object.entries(ERRNO).map(([name, n]) => [n, name as ErrnoName]),
);

/**
 * Name of an error number, with either sign.
 *
 * @param errno A Linux error number, positive or negative.
 * @returns Its name, or `"E" + number` for one that is not in the table.
 */
export function errnoName(errno: number): string {
  return BY_NUMBER.get(Math.abs(errno)) ?? `E${Math.abs(errno)}`;
}

/**
 * What `strerror(3)` says for an error number of either sign.
 *
 * @param errno A Linux error number, positive or negative.
 */
export function strerror(errno: number): string {
  const name = BY_NUMBER.get(Math.abs(errno));
  return name ? TEXT[name] : `Unknown error ${Math.abs(errno)}`;
}

/** A value as error messages show it: whatever it is, on one line, and not too
 * long. */
export function show(value: unknown): string {
  return Deno.inspect(value, {
    depth: 0,
    iterableLimit: 4,
    strAbbreviateSize: 100,
    breakLength: Infinity,
  });
}

/** Where an {@linkcode FsError} came from. */
export interface FsErrorContext {
  /** The operation that failed, as Linux calls it (`"pwrite"`, `"mount"`). */
  syscall?: string;
  /** The file, directory or device concerned. */
  path?: string;
}

/**
 * The error that the public face throws: a Linux errno with its context.
 *
 * Layers below it return negative numbers, and nothing else throws
 * for a condition that a caller can meet.
 */
export class FsError extends Error {
  /** Name of the error, `"ENOSPC"`. */
  readonly code: string;
  /** Linux error number, positive. */
  readonly errno: number;
  /** The operation that failed, as Linux calls it; `""` if there is none. */
  readonly syscall: string;
  /** The file, directory or device concerned; `""` if there is none. */
  readonly path: string;

  /**
   * An error with its context.
   *
   * @param errno Linux error number, either sign.
   * @param message What failed and, for bad input, which value was wrong. The
   *   name of the error is appended.
   * @param context The operation and path.
   */
  constructor(errno: number, message: string, context: FsErrorContext = {}) {
    super(`${message}: ${errnoName(errno)} (${strerror(errno)})`);
    this.name = "FsError";
    this.errno = Math.abs(errno);
    this.code = errnoName(errno);
    this.syscall = context.syscall ?? "";
    this.path = context.path ?? "";
  }
}

/**
 * Checks a number that a user gives.
 *
 * @throws {FsError} EINVAL with its name, if it is no whole number from `min` to
 *   `max`.
 */
export function checkCount(
  name: string,
  value: number,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  throw new FsError(
    EINVAL,
    `${name} ${show(value)} is not a whole number from ${min} to ${max}`,
  );
}
