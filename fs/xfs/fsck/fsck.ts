/**
 * Checking a file system that is not mounted: every structure against every other.
 *
 * Nothing is repaired, and nothing of what the file system itself runs on is used but
 * the format's offsets: a mistake in its logic must not hide itself. Whatever the
 * image says, the check ends, throws nothing, and takes memory in proportion to the
 * image's size.
 *
 * Program counterpart: xfsprogs `xfs_repair -n`.
 *
 * @module
 */

import { BlockDevice } from "../../../block/blkdev.ts";
import { EINVAL } from "../../../lib/errno.ts";
import { decodeSb, type SbRefusal, XfsSb } from "../libxfs/sb.ts";
import { FsckGroup } from "./ag.ts";
import { FsckContext } from "./context.ts";
import { DirCheck, LinkCheck } from "./dir.ts";
import { InodeCheck, InodeTable } from "./inode.ts";
import { LogCheck } from "./log.ts";
import { DeviceReader, type FsckReader } from "./reader.ts";
import { checkCounters, checkPrimary, checkSecondaries } from "./super.ts";

export type { FsckReader } from "./reader.ts";

/** What a check found. */
export interface FsckReport {
  /** A line for each thing that is wrong: where, and the values. */
  findings: string[];
  /** Findings beyond those. */
  more: number;
  /** Whether it could be checked at all; if not, the only finding says why. */
  judged: boolean;
  /** Inodes in use. */
  inodes: number;
}

/** How a check is done. */
export interface FsckOptions {
  /** Called now and then.
   * @param phase What is being done.
   * @param done Of `total`. */
  progress?: (phase: string, done: number, total: number) => void;
}

const MAX_SECTOR = 32768;

/**
 * Checks a file system (program: `xfs_repair -n`).
 *
 * @param source A device on which nothing is mounted, or what else can be read.
 * @returns What is wrong with it; clean if that is nothing.
 */
export function fsckXfs(
  source: BlockDevice | FsckReader,
  options: FsckOptions = {},
): FsckReport {
  const reader = source instanceof BlockDevice
    ? new DeviceReader(source)
    : source;
  const progress = options.progress ?? (() => {});
  const primary = new Uint8Array(Math.min(MAX_SECTOR, reader.size));
  const error = reader.size < 512 ? -EINVAL : reader.read(0, primary);
  if (error !== 0) return cannotJudge(`superblock cannot be read: ${-error}`);
  const sb = decodeSb(primary);
  if (!(sb instanceof XfsSb)) return refused(sb);
  return new Check(reader, sb, primary.subarray(0, sb.sectsize), progress)
    .run();
}

function cannotJudge(why: string): FsckReport {
  return { findings: [why], more: 0, judged: false, inodes: 0 };
}

/** A super block that is not understood is none that could be wrong. */
function refused({ errno, reason }: SbRefusal): FsckReport {
  const line = `bad primary superblock - ${reason}`;
  if (errno === -EINVAL) return cannotJudge(line);
  return { findings: [line], more: 0, judged: true, inodes: 0 };
}

/** One check. */
class Check {
  readonly #ctx: FsckContext;
  readonly #primary: Uint8Array;
  readonly #progress: (phase: string, done: number, total: number) => void;

  constructor(
    reader: FsckReader,
    sb: XfsSb,
    primary: Uint8Array,
    progress: (phase: string, done: number, total: number) => void,
  ) {
    this.#ctx = new FsckContext(reader, sb, []);
    this.#primary = primary;
    this.#progress = progress;
  }

  run(): FsckReport {
    const ctx = this.#ctx;
    const { sb } = ctx;
    if (sb.dblocks * sb.blocksize > ctx.reader.size) {
      ctx.found(
        `dblocks ${sb.dblocks}, the device has ${ctx.reader.size} bytes`,
      );
      return this.#report(0);
    }
    const hasLog = sb.logstart > 0 &&
      sb.verifyFsbext(sb.logstart, sb.logblocks);
    if (hasLog) new LogCheck(ctx).check();
    checkPrimary(ctx, this.#primary);
    checkSecondaries(ctx, this.#primary);
    const groups = this.#groups();
    checkCounters(ctx, groups, this.#primary);
    const table = new InodeTable(ctx, groups);
    const inodes = this.#inodes(table);
    this.#uses(groups);
    return this.#report(inodes);
  }

  #groups(): FsckGroup[] {
    const { agcount } = this.#ctx.sb;
    const groups: FsckGroup[] = [];
    for (let agno = 0; agno < agcount; agno++) {
      this.#progress("groups", agno, agcount);
      const group = new FsckGroup(this.#ctx, agno);
      group.check();
      groups.push(group);
    }
    return groups;
  }

  /** @returns Inodes in use. */
  #inodes(table: InodeTable): number {
    const inodes = new InodeCheck(this.#ctx, table);
    const { count } = table;
    inodes.all((done) => this.#progress("inodes", done, count));
    const dirs = new DirCheck(this.#ctx, table, inodes);
    dirs.all((done) => this.#progress("directories", done, count));
    const known = table.groups.every((group) => group.chunksKnown);
    new LinkCheck(this.#ctx, table).check(dirs.complete && known);
    return table.type.reduce((n, type) => n + (type === 0 ? 0 : 1), 0);
  }

  #uses(groups: FsckGroup[]): void {
    for (const group of groups) {
      this.#progress("blocks", group.agno, groups.length);
      group.compareUses();
    }
  }

  #report(inodes: number): FsckReport {
    const { findings, more } = this.#ctx;
    return { findings, more, judged: true, inodes };
  }
}
