/**
 * What can be wrong with a device: its media, its answers, its promises.
 *
 * Damage lies on the media: sectors that cannot be read, or read wrong. It outlives
 * the power and goes when the sectors are written. Everything else is a rule that
 * strikes commands. One seed and one sequence of commands give the same strikes.
 *
 * @module
 */

import { EINVAL, FsError, show } from "../../lib/errno.ts";
import { Prng } from "../../lib/prng.ts";
import { RangeMap } from "../../lib/range-map.ts";
import { BLK_ZONE_COND_OFFLINE, BLK_ZONE_COND_READONLY } from "../blk-zoned.ts";
import type { Media } from "./media.ts";
import {
  NVME_CMD_COMPARE,
  NVME_CMD_COPY,
  NVME_CMD_DSM,
  NVME_CMD_FLUSH,
  NVME_CMD_READ,
  NVME_CMD_VERIFY,
  NVME_CMD_WRITE,
  NVME_CMD_WRITE_UNCOR,
  NVME_CMD_WRITE_ZEROES,
  NVME_CMD_ZONE_APPEND,
  NVME_CMD_ZONE_MGMT_SEND,
  NVME_SC_CMD_INTERRUPTED,
  NVME_SC_HOST_PATH_ERROR,
  NVME_SC_INTERNAL,
  NVME_SC_NS_NOT_READY,
  NVME_SC_READ_ERROR,
  NVME_SC_SUCCESS,
  NVME_SC_WRITE_FAULT,
} from "./nvme.ts";
import type { StoreCommand } from "./store.ts";
import { VERSION_DATA } from "./version.ts";

const SECTOR = 512;
/** Sectors that a rate may choose at most. */
const MAX_SCATTERED = 100_000;
/** Sectors that a stale read keeps at most, 16 MiB. */
const MAX_STALE = 32_768;

/** Commands that a rule is about. */
export type FaultOp =
  | "read"
  | "write"
  | "write-zeroes"
  | "discard"
  | "flush"
  | "zone"
  | "any";

/** Which commands a rule strikes, of those that it is about. */
export interface FaultWhen {
  /** First sector of a range; only commands that touch it count. 0 if absent. */
  sector?: number;
  /** Sectors of the range; all that follow if absent. */
  sectors?: number;
  /** So many such commands pass first; 0 if absent. */
  after?: number;
  /** Strikes one in so many of the rest, by chance; 1 if absent. */
  chance?: number;
  /** Strikes that many times; if absent once, or without end with `chance`. */
  count?: number;
}

/** Sectors of the media. */
export interface FaultSectors {
  /** First sector. */
  sector: number;
  /** Sectors; 1 if absent. */
  sectors?: number;
  /** Share of them that is chosen, 0 to 1; all if absent. */
  rate?: number;
}

/** Something that is wrong with a device. */
export type Fault =
  /** Reads end with MEDIUM, until the sectors are written. */
  | ({ kind: "latent" } & FaultSectors)
  /** Reads end well, and a bit of each sector is wrong, always the same one. */
  | ({ kind: "bit-rot" } & FaultSectors)
  /** A read ends with MEDIUM. */
  | ({ kind: "read-error" } & FaultWhen)
  /** A write ends with MEDIUM, having changed nothing, or its first `torn` sectors. */
  | ({ kind: "write-error"; torn?: number } & FaultWhen)
  /** Every write that touches this sector or a later one ends with MEDIUM. */
  | { kind: "write-error-from"; sector: number }
  /** A write ends well, and never reaches the media. */
  | ({ kind: "lost-write" } & FaultWhen)
  /** A write ends well, and its data goes to another place: sector `to`, or one by
   * chance that is aligned to its size. */
  | ({ kind: "misdirected-write"; to?: number } & FaultWhen)
  /** A read gives data of another place: from sector `from` on, or by chance. */
  | ({ kind: "misdirected-read"; from?: number } & FaultWhen)
  /** A read gives what the range held when the fault was added. */
  | ({ kind: "stale-read"; sectors: number } & FaultWhen)
  /** When the power goes, of one in `chance` (1 if absent) of the fragments that
   * persist only the first sectors do. */
  | { kind: "shorn-write"; chance?: number }
  /** A command ends with an error that goes away: "transport" (TRANSPORT),
   * "interrupted" or "not-ready" (TARGET) or "internal" (IOERR). */
  | ({ kind: "transient"; op?: FaultOp; status?: TransientStatus } & FaultWhen)
  /** A command gets no completion, until it is aborted. */
  | ({ kind: "hang"; op?: FaultOp } & FaultWhen)
  /** A zone fails, for good. */
  | { kind: "bad-zone"; zone: number; state: "read-only" | "offline" }
  /** FLUSH and FUA end well, and nothing is durable for it. */
  | { kind: "liar" };

/** What a transient error says. */
export type TransientStatus =
  | "transport"
  | "interrupted"
  | "not-ready"
  | "internal";

const TRANSIENT: Readonly<Record<TransientStatus, number>> = {
  "transport": NVME_SC_HOST_PATH_ERROR,
  "interrupted": NVME_SC_CMD_INTERRUPTED,
  "not-ready": NVME_SC_NS_NOT_READY,
  "internal": NVME_SC_INTERNAL,
};

/** Instead of a status: the command hangs. */
export const FAULT_HANG: number = -1;

/** What becomes of a write. */
export interface WriteFate {
  /** Status that it ends with. */
  status: number;
  /** Bytes that are written nevertheless, if it fails. */
  torn: number;
  /** Byte of the media that it goes to; -1 if it is lost. */
  target: number;
}

/** What becomes of a read. */
export interface ReadFate {
  /** Byte that is read instead of its first. */
  from: number;
  /** Old data that it gives. */
  stale: StaleData | null;
}

/** What a range held once. */
export class StaleData {
  readonly #at: number;
  readonly #data: Uint8Array;

  /** `data` was at byte `at`. */
  constructor(at: number, data: Uint8Array) {
    this.#at = at;
    this.#data = data;
  }

  /** Puts it over what has been read to memory from byte `at` on. */
  overlay(at: number, data: Uint8Array, offset: number, len: number): void {
    const from = Math.max(at, this.#at);
    const to = Math.min(at + len, this.#at + this.#data.length);
    if (from >= to) return;
    const bytes = this.#data.subarray(from - this.#at, to - this.#at);
    data.set(bytes, offset + from - at);
  }
}

/** A rule at work. */
interface Rule {
  id: number;
  fault: Fault;
  op: FaultOp;
  start: number;
  /** First byte behind the range. */
  end: number;
  pass: number;
  chance: number;
  left: number;
  stale: StaleData | null;
}

/** What a plan needs of its device. */
export interface FaultDevice {
  /** Reads from byte `at` on; a status. */
  readInto(at: number, data: Uint8Array): number;
  /** Lets a zone fail; 0 or -EINVAL. */
  failZone(zone: number, cond: number): number;
}

// Kinds of damage.
const UNREADABLE = 1;
const ROTTEN = 2;

/** The faults of a device. */
export class FaultPlan {
  readonly #size: number;
  readonly #seed: number;
  readonly #random: Prng;
  #device: FaultDevice | null = null;
  #rules: Rule[] = [];
  #nextId = 1;
  #liar = false;
  #shorn = 0;
  /** Ranges of bytes that cannot be read, or read wrong; the media's.
   * @internal */
  readonly damage: RangeMap<number>;
  /** Whether {@linkcode strike} has rules to look at. */
  strikes = false;
  /** Whether {@linkcode onRead} has. */
  strikesReads = false;
  /** Whether {@linkcode onWrite} has. */
  strikesWrites = false;

  /**
   * Nothing is wrong.
   *
   * @param size Bytes of the device.
   * @param seed Seed of its chance.
   * @param damage What is wrong with the media already.
   */
  constructor(
    size: number,
    seed: number,
    damage: RangeMap<number> = new RangeMap(),
  ) {
    this.#size = size;
    this.#seed = seed;
    this.#random = new Prng(seed, "faults");
    this.damage = damage;
  }

  /** Whether FLUSH and FUA do nothing. */
  get liar(): boolean {
    return this.#liar;
  }

  /** Faults with rules that are still at work. */
  get list(): readonly Fault[] {
    return this.#rules.map(({ fault }) => fault);
  }

  /** Tells which device it is that suffers; the namespace does.
   * @internal */
  attach(device: FaultDevice): void {
    this.#device = device;
  }

  /** The damage of the media, for a copy of it. Rules stay here. */
  clone(): FaultPlan {
    return new FaultPlan(this.#size, this.#seed, this.damage.clone());
  }

  /**
   * Adds a fault.
   *
   * @returns Its number, for {@linkcode remove}; 0 if it lies in the media or a zone.
   * @throws {FsError} EINVAL, naming what cannot be.
   */
  add(fault: Fault): number {
    checkFault(fault, this.#size);
    switch (fault.kind) {
      case "latent":
        this.#spread(fault, UNREADABLE);
        return 0;
      case "bit-rot":
        this.#spread(fault, ROTTEN);
        return 0;
      case "bad-zone":
        this.#failZone(fault.zone, fault.state);
        return 0;
    }
    const rule = this.#rule({ ...fault });
    this.#rules.push(rule);
    this.#look();
    return rule.id;
  }

  /** Takes a rule back.
   * @returns Whether it was at work. */
  remove(id: number): boolean {
    const before = this.#rules.length;
    this.#rules = this.#rules.filter((rule) => rule.id !== id);
    this.#look();
    return this.#rules.length < before;
  }

  /** Takes all rules back, and heals the media. Zones that failed stay so. */
  clear(): void {
    this.#rules = [];
    this.damage.clearAll();
    this.#look();
  }

  /**
   * Asks what happens to a command whose time has come; the controller does.
   *
   * @returns 0 if it is to be carried out, the status that it ends with, or
   *   {@linkcode FAULT_HANG}.
   *
   * @internal
   */
  strike(command: StoreCommand): number {
    for (const rule of this.#rules) {
      const answer = answerOf(rule.fault);
      if (answer === NVME_SC_SUCCESS || !this.#strikes(rule, command)) continue;
      return answer;
    }
    return NVME_SC_SUCCESS;
  }

  /** What happens to a write that is being carried out; null if nothing does.
   * @internal */
  onWrite(command: StoreCommand): WriteFate | null {
    const { at, len } = command;
    for (const rule of this.#rules) {
      const { fault } = rule;
      if (!changesWrites(fault) || !this.#strikes(rule, command)) continue;
      switch (fault.kind) {
        case "lost-write":
          return { status: NVME_SC_SUCCESS, torn: 0, target: -1 };
        case "misdirected-write":
          return {
            status: NVME_SC_SUCCESS,
            torn: 0,
            target: this.#elsewhere(fault.to, at, len),
          };
        case "write-error": {
          const torn = Math.min((fault.torn ?? 0) * SECTOR, len);
          return { status: NVME_SC_WRITE_FAULT, torn, target: at };
        }
      }
    }
    return null;
  }

  /** What happens to a read that is being carried out; null if nothing does.
   * @internal */
  onRead(command: StoreCommand): ReadFate | null {
    const { at, len } = command;
    for (const rule of this.#rules) {
      const { fault, stale } = rule;
      if (!changesReads(fault) || !this.#strikes(rule, command)) continue;
      if (fault.kind !== "misdirected-read") return { from: at, stale };
      return { from: this.#elsewhere(fault.from, at, len), stale: null };
    }
    return null;
  }

  /**
   * How much of a fragment reaches the media when the power goes.
   *
   * @param len Its bytes.
   * @param kind Of its version.
   * @param chance Decides.
   *
   * @internal
   */
  shear(len: number, kind: number, chance: Prng): number {
    if (this.#shorn === 0 || kind !== VERSION_DATA || len === SECTOR) {
      return len;
    }
    if (chance.below(this.#shorn) > 0) return len;
    return SECTOR * (1 + chance.below(len / SECTOR - 1));
  }

  /** Flips the bits that are wrong in what has been read from a range of the media. */
  rot(at: number, data: Uint8Array, offset: number, len: number): void {
    const end = at + len;
    for (let pos = at; this.damage.touches(pos, end); pos = this.damage.end) {
      const { start, end: stop, value } = this.damage;
      if (value !== ROTTEN) continue;
      for (let s = Math.max(start, at - at % SECTOR); s < stop && s < end;) {
        const sector = Math.floor(s / SECTOR);
        const bit = new Prng(this.#seed, `rot ${sector}`).below(SECTOR * 8);
        const byte = sector * SECTOR + (bit >>> 3);
        if (byte >= at && byte < end) {
          data[offset + byte - at]! ^= 1 << (bit & 7);
        }
        s = (sector + 1) * SECTOR;
      }
    }
  }

  /** Whether something of a range cannot be read. */
  isUnreadable(at: number, end: number): boolean {
    const { damage } = this;
    for (let pos = at; damage.touches(pos, end); pos = damage.end) {
      if (damage.value === UNREADABLE) return true;
    }
    return false;
  }

  /** Makes a range unreadable. */
  spoil(at: number, len: number): void {
    this.damage.set(at, at + len, UNREADABLE);
  }

  #spread({ sector, sectors = 1, rate }: FaultSectors, kind: number): void {
    if (rate === undefined) {
      this.damage.set(sector * SECTOR, (sector + sectors) * SECTOR, kind);
      return;
    }
    const count = Math.round(rate * sectors);
    for (let i = 0; i < count; i++) {
      const at = (sector + this.#random.below(sectors)) * SECTOR;
      this.damage.set(at, at + SECTOR, kind);
    }
  }

  #failZone(zone: number, state: "read-only" | "offline"): void {
    const cond = state === "offline"
      ? BLK_ZONE_COND_OFFLINE
      : BLK_ZONE_COND_READONLY;
    if (this.#device?.failZone(zone, cond) === 0) return;
    refuse(`zone ${show(zone)} is no sequential zone`);
  }

  #rule(fault: Fault): Rule {
    const when = fault as FaultWhen;
    const { sector = 0, sectors, after = 0, chance = 1 } = when;
    const { count = when.chance === undefined ? 1 : Infinity } = when;
    const start = sector * SECTOR;
    const end = sectors === undefined ? Infinity : start + sectors * SECTOR;
    return {
      id: this.#nextId++,
      fault,
      op: opOf(fault),
      start,
      end,
      pass: after,
      chance,
      left: fault.kind === "write-error-from" ? Infinity : count,
      stale: fault.kind === "stale-read" ? this.#keepStale(start, end) : null,
    };
  }

  #keepStale(start: number, end: number): StaleData {
    const data = new Uint8Array(end - start);
    // What cannot be read now was zeroes, as far as anybody will know.
    this.#device?.readInto(start, data);
    return new StaleData(start, data);
  }

  /** Notes what kinds of rules there are, so that nobody looks for others. */
  #look(): void {
    const faults = this.list;
    this.#liar = faults.some(({ kind }) => kind === "liar");
    const shorn = faults.find((fault) => fault.kind === "shorn-write");
    this.#shorn = shorn === undefined ? 0 : shorn.chance ?? 1;
    this.strikes = faults.some((f) => answerOf(f) !== NVME_SC_SUCCESS);
    this.strikesReads = faults.some(changesReads);
    this.strikesWrites = faults.some(changesWrites);
  }

  /** Whether a rule strikes a command that it may be about; counts it. */
  #strikes(rule: Rule, command: StoreCommand): boolean {
    if (!concerns(rule.op, command.opcode) || !touches(rule, command)) {
      return false;
    }
    if (rule.pass > 0) {
      rule.pass--;
      return false;
    }
    if (rule.chance > 1 && this.#random.below(rule.chance) > 0) return false;
    if (--rule.left === 0) this.remove(rule.id);
    return true;
  }

  /** Another place of the size of a range, in bytes. */
  #elsewhere(sector: number | undefined, at: number, len: number): number {
    if (sector !== undefined) {
      return Math.min(sector * SECTOR, this.#size - len);
    }
    const places = Math.floor(this.#size / len);
    const own = Math.floor(at / len);
    if (places < 2) return at;
    const other = this.#random.below(places - 1);
    return (other < own ? other : other + 1) * len;
  }
}

/** Media with what is wrong with it; answers are statuses. */
export class DamagedMedia {
  /** The media. */
  readonly media: Media;
  readonly #faults: FaultPlan;

  /** Media, and what is wrong with it. */
  constructor(media: Media, faults: FaultPlan) {
    this.media = media;
    this.#faults = faults;
  }

  /** Reads; READ_ERROR if something cannot be read. */
  read(at: number, data: Uint8Array, offset: number, len: number): number {
    const faults = this.#faults;
    const isDamaged = faults.damage.size > 0;
    if (isDamaged && faults.isUnreadable(at, at + len)) {
      return NVME_SC_READ_ERROR;
    }
    if (this.media.read(at, data, offset, len) !== 0) return NVME_SC_READ_ERROR;
    if (isDamaged) faults.rot(at, data, offset, len);
    return NVME_SC_SUCCESS;
  }

  /** Writes, which heals; WRITE_FAULT if the media cannot. */
  write(at: number, data: Uint8Array, offset: number, len: number): number {
    return this.#written(this.media.write(at, data, offset, len), at, len);
  }

  /** Makes a range zeroes, which heals; WRITE_FAULT if the media cannot. */
  zero(at: number, len: number): number {
    return this.#written(this.media.zero(at, len), at, len);
  }

  /** Makes a range unreadable. */
  spoil(at: number, len: number): number {
    this.#faults.spoil(at, len);
    return NVME_SC_SUCCESS;
  }

  /** Whether something from byte `at` to `end` cannot be read. */
  isUnreadable(at: number, end: number): boolean {
    return this.#faults.damage.size > 0 && this.#faults.isUnreadable(at, end);
  }

  #written(error: number, at: number, len: number): number {
    if (error !== 0) return NVME_SC_WRITE_FAULT;
    const { damage } = this.#faults;
    if (damage.size > 0) damage.clear(at, at + len);
    return NVME_SC_SUCCESS;
  }
}

/** What a command ends with that a fault strikes as a whole, 0 if it does not. */
function answerOf(fault: Fault): number {
  switch (fault.kind) {
    case "hang":
      return FAULT_HANG;
    case "transient":
      return TRANSIENT[fault.status ?? "transport"];
    case "read-error":
      return NVME_SC_READ_ERROR;
    case "write-error":
      return fault.torn === undefined ? NVME_SC_WRITE_FAULT : NVME_SC_SUCCESS;
    case "write-error-from":
      return NVME_SC_WRITE_FAULT;
    default:
      return NVME_SC_SUCCESS;
  }
}

function changesWrites(fault: Fault): boolean {
  return fault.kind === "lost-write" || fault.kind === "misdirected-write" ||
    (fault.kind === "write-error" && fault.torn !== undefined);
}

function changesReads(fault: Fault): boolean {
  return fault.kind === "misdirected-read" || fault.kind === "stale-read";
}

/** Commands that a fault is about. */
function opOf(fault: Fault): FaultOp {
  switch (fault.kind) {
    case "hang":
    case "transient":
      return fault.op ?? "any";
    case "read-error":
    case "misdirected-read":
    case "stale-read":
      return "read";
    default:
      return "write";
  }
}

function concerns(op: FaultOp, opcode: number): boolean {
  switch (opcode) {
    case NVME_CMD_READ:
    case NVME_CMD_COMPARE:
    case NVME_CMD_VERIFY:
      return op === "read" || op === "any";
    case NVME_CMD_WRITE:
    case NVME_CMD_ZONE_APPEND:
    case NVME_CMD_WRITE_UNCOR:
    case NVME_CMD_COPY:
      return op === "write" || op === "any";
    case NVME_CMD_WRITE_ZEROES:
      return op === "write-zeroes" || op === "any";
    case NVME_CMD_DSM:
      return op === "discard" || op === "any";
    case NVME_CMD_FLUSH:
      return op === "flush" || op === "any";
    case NVME_CMD_ZONE_MGMT_SEND:
      return op === "zone" || op === "any";
    default:
      return op === "any";
  }
}

/** A command without a range touches only the range of a rule that names none. */
function touches({ start, end }: Rule, { at, len }: StoreCommand): boolean {
  if (len === 0) return start === 0 && end === Infinity;
  return at < end && at + len > start;
}

function refuse(what: string): never {
  throw new FsError(EINVAL, `Cannot add a fault, ${what}`);
}

const SECTORS = ["sector", "sectors", "rate"];
const WHEN = ["sector", "sectors", "after", "chance", "count"];

/** Fields of each kind of fault. */
const FIELDS: Readonly<Record<Fault["kind"], readonly string[]>> = {
  "latent": SECTORS,
  "bit-rot": SECTORS,
  "read-error": WHEN,
  "write-error": ["torn", ...WHEN],
  "write-error-from": ["sector"],
  "lost-write": WHEN,
  "misdirected-write": ["to", ...WHEN],
  "misdirected-read": ["from", ...WHEN],
  "stale-read": WHEN,
  "shorn-write": ["chance"],
  "transient": ["op", "status", ...WHEN],
  "hang": ["op", ...WHEN],
  "bad-zone": ["zone", "state"],
  "liar": [],
};
const OPS: readonly unknown[] = [
  "read",
  "write",
  "write-zeroes",
  "discard",
  "flush",
  "zone",
  "any",
];
/** Least value of each field that is a whole number. */
const LEAST: Readonly<Record<string, number>> = {
  sector: 0,
  sectors: 1,
  after: 0,
  chance: 1,
  count: 1,
  torn: 0,
  to: 0,
  from: 0,
  zone: 0,
};

function checkFault(fault: Fault, size: number): void {
  if (typeof fault !== "object" || fault === null) {
    refuse(`${show(fault)} is not an object`);
  }
  const { kind } = fault;
  if (typeof kind !== "string" || !Object.hasOwn(FIELDS, kind)) {
    refuse(`kind ${show(kind)} is none of ${Object.keys(FIELDS).join(", ")}`);
  }
  const fields = FIELDS[kind];
  for (const [name, value] of Object.entries(fault)) {
    if (name === "kind") continue;
    if (!fields.includes(name)) refuse(`${kind} has no ${show(name)}`);
    if (value !== undefined) checkField(name, value);
  }
  checkNeeded(fault);
  checkRange(fault, size);
}

function checkField(name: string, value: unknown): void {
  const least = LEAST[name];
  if (least !== undefined) {
    if (Number.isSafeInteger(value) && value as number >= least) return;
    refuse(`${name} ${show(value)} is not a whole number from ${least} on`);
  }
  const fits = name === "op"
    ? OPS.includes(value)
    : name === "status"
    ? typeof value === "string" && Object.hasOwn(TRANSIENT, value)
    : name === "state"
    ? value === "read-only" || value === "offline"
    : typeof value === "number" && value >= 0 && value <= 1;
  if (!fits) refuse(`${name} ${show(value)} cannot be`);
}

function checkNeeded(fault: Fault): void {
  const need = (value: unknown, name: string) => {
    if (value === undefined) refuse(`${fault.kind} needs ${name}`);
  };
  switch (fault.kind) {
    case "latent":
    case "bit-rot":
      return need(fault.sector, "sector");
    case "write-error-from":
      return need(fault.sector, "sector");
    case "stale-read":
      return need(fault.sectors, "sectors");
    case "bad-zone":
      need(fault.zone, "zone");
      return need(fault.state, "state");
  }
}

/** Damage and old data have to lie on the device. */
function checkRange(fault: Fault, size: number): void {
  const { kind } = fault;
  const onMedia = kind === "latent" || kind === "bit-rot";
  if (!onMedia && kind !== "stale-read") return;
  const { sector = 0, sectors = 1 } = fault;
  const limit = size / SECTOR;
  if (sector > limit - sectors) {
    refuse(`sectors ${sector}+${sectors} are not among the ${limit} there are`);
  }
  const many = onMedia && fault.rate !== undefined &&
    fault.rate * sectors > MAX_SCATTERED;
  if (many) refuse(`rate ${fault.rate} is more than ${MAX_SCATTERED} sectors`);
  if (!onMedia && sectors > MAX_STALE) {
    refuse(`sectors ${sectors} are more than ${MAX_STALE}`);
  }
}
