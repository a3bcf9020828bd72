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
/** An event counter is told of the completion; says nothing here. */
export const IOCB_EVENTFD: number = 1 << 16;
/** Bypass the page cache. */
export const IOCB_DIRECT: number = 1 << 17;
/** The call writes. */
export const IOCB_WRITE: number = 1 << 18;
/** The caller waits by itself for what a buffered read waits for. */
export const IOCB_WAITQ: number = 1 << 19;
/** No I/O at all: -EAGAIN instead. */
export const IOCB_NOIO: number = 1 << 20;
/** Bios come from a cache; says nothing here. */
export const IOCB_ALLOC_CACHE: number = 1 << 21;
/**
 * The caller ends direct I/O itself where it can: told by `kiComplete` it calls
 * `dioComplete`, if that is set, with `private`, and that answers the result.
 */
export const IOCB_DIO_CALLER_COMP: number = 1 << 22;
/** The call is one of io_submit(2); says nothing here. */
export const IOCB_AIO_RW: number = 1 << 23;
/** Protection information comes along. */
export const IOCB_HAS_METADATA: number = 1 << 24;
/**
 * Ours: the caller is synchronous and cannot let another task go on, so a lock
 * that somebody holds is -EAGAIN. Waiting for I/O is allowed.
 */
export const IOCB_SYNC_CALL: number = 1 << 26;
