/**
 * Cuts a log short, as a power cut does: at the record after which most work is promised
 * that nobody says was done.
 *
 * @module
 */

import * as L from "../../fs/xfs/libxfs/log-format.ts";
import { decodeSb, XfsSb } from "../../fs/xfs/libxfs/sb.ts";
import { xlogLogrecHblks } from "../../fs/xfs/log.ts";

const INTENTS = [L.XFS_LI_EFI, L.XFS_LI_RUI, L.XFS_LI_CUI, L.XFS_LI_BUI];

/** The log of an image that has not been around yet. */
class FirstTurn {
  readonly data: Uint8Array;
  readonly view: DataView;

  constructor(file: Deno.FsFile, at: number, bytes: number) {
    this.data = new Uint8Array(bytes);
    this.view = new DataView(this.data.buffer);
    file.seekSync(at, Deno.SeekMode.Start);
    for (let n = 0; n < bytes;) n += file.readSync(this.data.subarray(n))!;
  }

  /** First words of the blocks back in place. */
  unpack(at: number, hblks: number, len: number): void {
    for (let bb = 0; bb < len / 512; bb++) {
      const header = Math.floor(bb / 64);
      const words = at + header * 512 + (header === 0 ? L.H_CYCLE_DATA : 4);
      const from = words + bb % 64 * 4;
      this.data.copyWithin(at + (hblks + bb) * 512, from, from + 4);
    }
  }

  /** Notes the intents of a record, and what was done. */
  scan(at: number, ops: number, pending: Set<string>): void {
    for (let i = 0; i < ops; i++) {
      const len = this.view.getUint32(at + L.OH_LEN);
      const from = at + L.XLOG_OP_HEADER_LEN;
      const type = len >= 16 ? this.view.getUint16(from, true) : 0;
      const one = this.view.getUint16(from + 2, true) === 1;
      const id = this.view.getBigUint64(from + 8, true);
      if (one && INTENTS.includes(type)) pending.add(`${type}:${id}`);
      if (one && INTENTS.includes(type - 1)) {
        pending.delete(`${type - 1}:${id}`);
      }
      at = from + len;
    }
  }
}

/**
 * Cuts the log of an image that has not gone around.
 *
 * @returns What is promised and not done; 0 if nothing was cut.
 */
export function cutLog(path: string): number {
  using file = Deno.openSync(path, { read: true, write: true });
  const head = new Uint8Array(32768);
  file.readSync(head);
  const sb = decodeSb(head);
  if (!(sb instanceof XfsSb)) return 0;
  const start = sb.fsbToByte(sb.logstart);
  const log = new FirstTurn(file, start, sb.logblocks * sb.blocksize);
  const pending = new Set<string>();
  let best = 0;
  let cut = 0;
  let at = 0;
  while (log.view.getUint32(at) === L.XLOG_HEADER_MAGIC_NUM) {
    const len = log.view.getUint32(at + L.H_LEN);
    if (len === 0 || log.view.getUint32(at + L.H_CYCLE) !== 1) break;
    const hblks = xlogLogrecHblks(log.view.getUint32(at + L.H_SIZE));
    log.unpack(at, hblks, len);
    const ops = log.view.getUint32(at + L.H_NUM_LOGOPS);
    log.scan(at + hblks * 512, ops, pending);
    at += hblks * 512 + len;
    if (pending.size >= best && pending.size > 0) {
      best = pending.size;
      cut = at;
    }
  }
  if (best === 0) return 0;
  file.seekSync(start + cut, Deno.SeekMode.Start);
  const zero = new Uint8Array(log.data.length - cut);
  for (let n = 0; n < zero.length;) n += file.writeSync(zero.subarray(n));
  return best;
}
