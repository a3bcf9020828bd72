/**
 * One read or write call.
 *
 * Kernel counterpart: include/linux/fs.h (`struct kiocb`).
 *
 * @module
 */
import type { MaybePromise } from "../lib/maybe-promise.ts";
import type { AddressSpace } from "../mm/address-space.ts";
import type { FileRaState } from "../mm/readahead.ts";
import type { File } from "./fs.ts";

export * from "../mm/iocb-flags.ts";

/** One read or write call (kernel: `struct kiocb`). */
export class Kiocb {
  /** The open file. */
  readonly file: File;
  /** File offset, bytes; advanced by what was done. */
  pos = 0;
  /** `IOCB_*`. */
  flags = 0;
  /** Asynchronous call: told the result once -EIOCBQUEUED was returned. Null: synchronous. */
  kiComplete: ((iocb: Kiocb, ret: number) => void) | null = null;
  /** The layer's that handles the call: of polled I/O the bio to poll for, until it
   * has ended. */
  private: unknown = null;
  /** What ends direct I/O, with `private`; set if the issuer asked for it with
   * `IOCB_DIO_CALLER_COMP` and nothing has to be done before. */
  dioComplete: ((data: unknown) => MaybePromise<number>) | null = null;

  /** `flags` are the file's and the call's own. */
  constructor(file: File, pos = 0, flags = 0) {
    this.file = file;
    this.pos = pos;
    this.flags = flags;
  }

  /** The file's page cache. */
  get mapping(): AddressSpace {
    return this.file.inode.mapping;
  }

  /** The open file's readahead state. */
  get ra(): FileRaState {
    return this.file.ra;
  }
}

/** Whether the caller waits in the call (kernel: `is_sync_kiocb`). */
export function isSyncKiocb(iocb: Kiocb): boolean {
  return iocb.kiComplete === null;
}
