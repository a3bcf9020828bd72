/**
 * Flags of one read or write call, shared by the page cache, iomap and the VFS.
 *
 * Kernel counterpart: include/linux/fs.h (`IOCB_*`).
 *
 * @module
 */

/** Poll for the completion. */
export const IOCB_HIPRI = 0x1;
/** Durable data before the call returns. */
export const IOCB_DSYNC = 0x2;
/** Durable data and metadata before the call returns. */
export const IOCB_SYNC = 0x4;
/** -EAGAIN rather than wait. */
export const IOCB_NOWAIT = 0x8;
/** Write at the end of the file. */
export const IOCB_APPEND = 0x10;
/** The write is all or nothing. */
export const IOCB_ATOMIC = 0x40;
/** Drop the pages once they have been used. */
export const IOCB_DONTCACHE = 0x80;
/** Bypass the page cache. */
export const IOCB_DIRECT: number = 1 << 17;
/** The call writes. */
export const IOCB_WRITE: number = 1 << 18;
/** No I/O at all: -EAGAIN instead. */
export const IOCB_NOIO: number = 1 << 20;
/** The caller finishes direct I/O itself. */
export const IOCB_DIO_CALLER_COMP: number = 1 << 22;
/**
 * Ours: the caller is synchronous and cannot let another task go on, so a lock
 * that somebody holds is -EAGAIN. Waiting for I/O is allowed.
 */
export const IOCB_SYNC_CALL: number = 1 << 26;
