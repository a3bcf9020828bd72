/**
 * Errors that are reported to everyone who was there, once each.
 *
 * A value holds the last error, whether anybody has seen it, and a count that
 * moves when an error follows one that has been seen; who keeps the value he saw
 * last can tell whether there has been an error since.
 *
 * Kernel counterpart: lib/errseq.c.
 *
 * @module
 */

const MAX_ERRNO = 4095;
const SEEN = 4096;
const COUNT = 8192;

/** Last error and who knows of it; 0 to begin with (kernel: `errseq_t`). */
export type Errseq = number;

/** Records an error (kernel: `errseq_set`).
 * @param error Negative errno.
 * @returns The new value. */
export function errseqSet(value: Errseq, error: number): Errseq {
  const seen = (value & SEEN) !== 0;
  const count = Math.floor(value / COUNT) + (seen ? 1 : 0);
  return count * COUNT - error;
}

/** Where a newcomer begins: an error that nobody has seen yet is news to him
 * (kernel: `errseq_sample`). */
export function errseqSample(value: Errseq): Errseq {
  return (value & SEEN) !== 0 ? value : 0;
}

/** The value once its error has been seen. */
export function errseqMarkSeen(value: Errseq): Errseq {
  return (value & SEEN) !== 0 ? value : value + SEEN;
}

/** Something with an {@linkcode Errseq}: a mapping, a device, or who has been told of
 * their errors. */
export interface WbErrCursor {
  /** Last error and who knows of it; of a reader, the value that he saw last. */
  wbErr: Errseq;
}

/**
 * Tells a reader of an error since he last asked (kernel: `errseq_check_and_advance`).
 *
 * @param source Where errors are recorded; the last one has been seen then.
 * @param cursor The reader.
 * @returns 0 or a negative errno.
 */
export function errseqCheckAndAdvance(
  source: WbErrCursor,
  cursor: WbErrCursor,
): number {
  if (cursor.wbErr === source.wbErr) return 0;
  source.wbErr = errseqMarkSeen(source.wbErr);
  cursor.wbErr = source.wbErr;
  return errseqError(source.wbErr);
}

/** The error of a value: 0 or a negative errno. */
export function errseqError(value: Errseq): number {
  return 0 - (value & MAX_ERRNO);
}
