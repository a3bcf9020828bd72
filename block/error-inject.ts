/**
 * Errors by rule: bios that match end with a status, and no driver sees them.
 *
 * Rules are written as for the kernel's error injection:
 * `add,op=READ,status=MEDIUM,start=0,nr_sectors=8,chance=10`. Of several that
 * match, the first added has the say. Set as a device's `errorInjection` they are
 * for the whole disk; `ErrorDevice` lays them over any device.
 *
 * Kernel counterpart: the `error_injection` file of a disk in debugfs.
 *
 * @module
 */

import { EINVAL, FsError, show } from "../lib/errno.ts";
import { Prng } from "../lib/prng.ts";
import type { Bio } from "./bio.ts";
import {
  BLK_STS_AGAIN,
  BLK_STS_DURATION_LIMIT,
  BLK_STS_INVAL,
  BLK_STS_IOERR,
  BLK_STS_MEDIUM,
  BLK_STS_NOSPC,
  BLK_STS_NOTSUPP,
  BLK_STS_OFFLINE,
  BLK_STS_OK,
  BLK_STS_PROTECTION,
  BLK_STS_RESV_CONFLICT,
  BLK_STS_TARGET,
  BLK_STS_TIMEOUT,
  BLK_STS_TRANSPORT,
  BLK_STS_ZONE_ACTIVE_RESOURCE,
  BLK_STS_ZONE_OPEN_RESOURCE,
  opIsZoneMgmt,
  REQ_OP_DISCARD,
  REQ_OP_FLUSH,
  REQ_OP_READ,
  REQ_OP_SECURE_ERASE,
  REQ_OP_WRITE,
  REQ_OP_WRITE_ZEROES,
  REQ_OP_ZONE_APPEND,
  REQ_OP_ZONE_CLOSE,
  REQ_OP_ZONE_FINISH,
  REQ_OP_ZONE_OPEN,
  REQ_OP_ZONE_RESET,
  REQ_OP_ZONE_RESET_ALL,
  REQ_PREFLUSH,
  reqOp,
} from "./blk-types.ts";
import type { ErrorInjector } from "./blkdev.ts";

/** Which bios end, and with what. */
interface Rule {
  op: number;
  status: number;
  start: number;
  /** First sector behind the range. */
  end: number;
  /** One in so many. */
  chance: number;
  /** How often it may yet strike. */
  left: number;
}

/** A list of rules by which bios fail. */
export class ErrorInjection implements ErrorInjector {
  readonly #prng: Prng;
  #rules: Rule[] = [];

  /**
   * A list without rules.
   *
   * @param seed Seed of its chance, a safe integer.
   * @param rules Rules to begin with; see {@linkcode ErrorInjection.control}.
   * @throws {FsError} EINVAL, naming what is wrong with a rule or the seed.
   */
  constructor(seed = 1, rules: readonly string[] = []) {
    if (!Number.isSafeInteger(seed)) {
      throw new FsError(EINVAL, `seed ${show(seed)} is not a safe integer`);
    }
    this.#prng = new Prng(seed, "error");
    for (const rule of rules) this.control(rule);
  }

  /**
   * Adds a rule, or removes all.
   *
   * @param command `removeall`, or `add` and then `key=value`s, all joined by
   *   commas. `op` (the name of a `REQ_OP_*`) and `status` (that of a `BLK_STS_*`)
   *   have to be there. `start` and `nr_sectors` say which sectors (all), `chance`
   *   that one in so many bios fails (1), `count` how many do in all (no end). FLUSH
   *   means what carries PREFLUSH, and takes no sectors.
   * @throws {FsError} EINVAL, naming the part that is wrong.
   */
  control(command: string): void {
    if (typeof command !== "string") {
      throw new FsError(EINVAL, `Rule ${show(command)} is not a string`);
    }
    if (command === "removeall") this.#rules = [];
    else this.#rules.push(parseRule(command));
  }

  /**
   * Looks for a rule that strikes a bio.
   *
   * @returns The `BLK_STS_*` that it ends with, or `BLK_STS_OK`.
   */
  inject(bio: Bio): number {
    for (const rule of this.#rules) {
      if (!this.#strikes(rule, bio)) continue;
      if (--rule.left === 0) {
        this.#rules = this.#rules.filter((r) => r !== rule);
      }
      return rule.status;
    }
    return BLK_STS_OK;
  }

  #strikes(rule: Rule, bio: Bio): boolean {
    return matches(rule, bio) &&
      (rule.chance === 1 || this.#prng.below(rule.chance) === 0);
  }
}

function matches(rule: Rule, bio: Bio): boolean {
  if (rule.op === REQ_OP_FLUSH) return (bio.opf & REQ_PREFLUSH) !== 0;
  if (reqOp(bio.opf) !== rule.op || bio.sector >= rule.end) return false;
  // A zone operation names its zone by the first sector, and has no size.
  if (bio.size === 0) return opIsZoneMgmt(rule.op) && bio.sector >= rule.start;
  return bio.endSector > rule.start;
}

const OPS: Record<string, number> = {
  READ: REQ_OP_READ,
  WRITE: REQ_OP_WRITE,
  FLUSH: REQ_OP_FLUSH,
  DISCARD: REQ_OP_DISCARD,
  SECURE_ERASE: REQ_OP_SECURE_ERASE,
  ZONE_APPEND: REQ_OP_ZONE_APPEND,
  WRITE_ZEROES: REQ_OP_WRITE_ZEROES,
  ZONE_OPEN: REQ_OP_ZONE_OPEN,
  ZONE_CLOSE: REQ_OP_ZONE_CLOSE,
  ZONE_FINISH: REQ_OP_ZONE_FINISH,
  ZONE_RESET: REQ_OP_ZONE_RESET,
  ZONE_RESET_ALL: REQ_OP_ZONE_RESET_ALL,
};

/** Those that a bio may end with; the others never leave the block layer. */
const STATUSES: Record<string, number> = {
  NOTSUPP: BLK_STS_NOTSUPP,
  TIMEOUT: BLK_STS_TIMEOUT,
  NOSPC: BLK_STS_NOSPC,
  TRANSPORT: BLK_STS_TRANSPORT,
  TARGET: BLK_STS_TARGET,
  RESV_CONFLICT: BLK_STS_RESV_CONFLICT,
  MEDIUM: BLK_STS_MEDIUM,
  PROTECTION: BLK_STS_PROTECTION,
  IOERR: BLK_STS_IOERR,
  AGAIN: BLK_STS_AGAIN,
  ZONE_OPEN_RESOURCE: BLK_STS_ZONE_OPEN_RESOURCE,
  ZONE_ACTIVE_RESOURCE: BLK_STS_ZONE_ACTIVE_RESOURCE,
  OFFLINE: BLK_STS_OFFLINE,
  DURATION_LIMIT: BLK_STS_DURATION_LIMIT,
  INVAL: BLK_STS_INVAL,
};

const KEYS = ["op", "status", "start", "nr_sectors", "chance", "count"];

function parseRule(command: string): Rule {
  const fail = (what: string): never => {
    throw new FsError(EINVAL, `Cannot take rule ${show(command)}, ${what}`);
  };
  const given = parseParts(command, fail);
  const name = (key: string, table: Record<string, number>): number => {
    const value = given.get(key) ?? fail(`${key} is missing`);
    if (Object.hasOwn(table, value)) return table[value]!;
    return fail(`${key}=${value} is none of ${Object.keys(table).join(", ")}`);
  };
  const number = (key: string, least: number, otherwise: number): number => {
    const text = given.get(key);
    if (text === undefined) return otherwise;
    const value = /^(\d+|0x[\da-f]+)$/i.test(text) ? Number(text) : NaN;
    if (Number.isSafeInteger(value) && value >= least) return value;
    return fail(`${key}=${text} is not a whole number from ${least} on`);
  };
  const op = name("op", OPS);
  if (op === REQ_OP_FLUSH && (given.has("start") || given.has("nr_sectors"))) {
    fail("a FLUSH has no sectors");
  }
  const start = number("start", 0, 0);
  return {
    op,
    status: name("status", STATUSES),
    start,
    end: start + number("nr_sectors", 1, Infinity),
    chance: number("chance", 1, 1),
    left: number("count", 1, Infinity),
  };
}

/** Values of `add,key=value,…` by key. */
function parseParts(
  command: string,
  fail: (what: string) => never,
): Map<string, string> {
  const [verb, ...parts] = command.split(",");
  if (verb !== "add") fail(`"${verb}" is neither add nor removeall`);
  const given = new Map<string, string>();
  for (const part of parts) {
    const at = part.indexOf("=");
    const key = at < 0 ? part : part.slice(0, at);
    if (!KEYS.includes(key)) fail(`"${part}" is none of ${KEYS.join(", ")}`);
    if (given.has(key)) fail(`${key} is given twice`);
    given.set(key, at < 0 ? "" : part.slice(at + 1));
  }
  return given;
}
