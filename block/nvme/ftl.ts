/**
 * Flash translation: where each page of a device lies in flash, and which block is
 * emptied next.
 *
 * A page is 4 KiB of the device and fills one slot of flash. Slots are grouped into
 * units (what one program of one die stores), units into blocks (what is erased
 * together, over all dies). A page that is written again goes to a new slot, and
 * its old one is garbage until its block has been collected: what is still valid
 * moves, then the block is free. Greedy: the block with the least to move is next.
 *
 * Only numbers are kept, in arrays for what has been written: a large device with
 * little on it costs little. Time is `flash.ts`'s.
 *
 * @module
 */

/** Bytes of a page; a multiple of it where 2^32 slots would not do. */
const PAGE = 4096;
/** Pages in one piece of the map. */
const CHUNK = 4096;
/** Blocks of a device, unless they would be smaller than a unit or above 1 GiB. */
const BLOCKS = 1024;
const MAX_BLOCK = 2 ** 30;
/** Free blocks at which collection begins: one for each stream that writes. */
const LOW = 2;
/** Blocks beyond over-provisioning: the low mark, two that are open, one in hand. */
const RESERVE = 6;
/** More slots than that would not fit in a word. */
const MAX_SLOTS = 0xffff_fff0;

/** What the host writes. */
export const HOST_STREAM = 0;
/** What collection moves. */
export const MOVE_STREAM = 1;

/** The shape of flash. */
export interface FtlShape {
  /** Bytes of the device. */
  size: number;
  /** Bytes of a unit. */
  unit: number;
  /** Bytes of a unit in the fast mode; 0 if there is none. */
  fastUnit: number;
  /** Flash beyond the device's size, as a share of it. */
  overProvisioning: number;
  /** Room for data in the fast mode: at least this share of the device ... */
  fastShare: number;
  /** ... and at least this share of what is free. */
  fastOfFree: number;
}

/** Whoever programs what the map has filled. */
export interface FtlOwner {
  /** All slots of a unit have been given out. */
  unitFull(stream: number, unit: number): void;
  /** Valid pages of a unit have been moved: `slots`, in so many reads of the array. */
  unitMoved(unit: number, slots: number): void;
  /** A block has been erased. */
  erased(): void;
}

// States of a block.
const FREE = 0;
const OPEN = 1;
const CLOSED = 2;
const VICTIM = 3;

/** The map of one device. */
export class Ftl {
  /** Bytes of a page. */
  readonly pageBytes: number;
  /** Slots of a unit. */
  readonly unitSlots: number;
  /** Units of a block. */
  readonly blockUnits: number;
  /** Pages written by the host and by collection: their sum over the first is the amplification. */
  readonly written: Float64Array = new Float64Array(2);
  /** Slots of a unit in the fast mode. */
  readonly #fastSlots: number;
  readonly #owner: FtlOwner;
  readonly #shape: FtlShape;
  readonly #pages: number;
  readonly #blockSlots: number;
  /** Slot plus one of each page, 0 if it is nowhere; null where none is. */
  readonly #map: (Uint32Array | null)[];
  #mapped = 0;

  // Columns by block.
  readonly #state: Uint8Array;
  readonly #fast: Uint8Array;
  readonly #valid: Int32Array;
  /** Page of each slot. */
  readonly #pageOf: (Uint32Array | null)[];
  readonly #before: Int32Array;
  readonly #after: Int32Array;
  /** Closed blocks by number of valid pages: the first of each list, or -1. */
  readonly #buckets: Int32Array;
  /** No list below is filled. */
  #least = 0;
  /** Closed blocks in the fast mode, the oldest first. */
  #fastClosed: number[] = [];
  #fastBlocks = 0;
  #fastOpen: boolean;
  #free: number[] = [];
  #freeHead = 0;
  readonly #spare: Uint32Array[] = [];

  // Streams: their block, or -1, and slots given out in it.
  readonly #block: Int32Array = new Int32Array([-1, -1]);
  readonly #used: Float64Array = new Float64Array(2);

  #victim = -1;
  #victimUnit = 0;
  /** Pages to be moved for each slot that the host writes. */
  #pace = 0;
  #debt = 0;

  /** A map in which nothing has been written. */
  constructor(shape: FtlShape, owner: FtlOwner) {
    this.#shape = shape;
    this.#owner = owner;
    const { size, unit } = shape;
    const units = Math.ceil(size / unit);
    this.blockUnits = Math.floor(
      Math.max(1, Math.min(units / BLOCKS, MAX_BLOCK / unit)),
    );
    const blockBytes = this.blockUnits * unit;
    const logical = Math.ceil(size / blockBytes);
    const wide = shape.fastUnit > 0 ? unit / shape.fastUnit : 0;
    const blocks = Math.ceil(logical * (1 + shape.overProvisioning)) +
      Math.ceil(logical * shape.fastShare * wide) + RESERVE;
    let page = PAGE;
    while (blocks * blockBytes / page > MAX_SLOTS) page *= 2;
    this.pageBytes = page;
    this.unitSlots = unit / page;
    this.#fastSlots = shape.fastUnit / page;
    this.#fastOpen = shape.fastUnit > 0;
    this.#blockSlots = this.blockUnits * this.unitSlots;
    this.#pages = Math.ceil(size / page);
    this.#map = new Array(Math.ceil(this.#pages / CHUNK)).fill(null);
    this.#state = new Uint8Array(blocks);
    this.#fast = new Uint8Array(blocks);
    this.#valid = new Int32Array(blocks);
    this.#pageOf = new Array(blocks).fill(null);
    this.#before = new Int32Array(blocks);
    this.#after = new Int32Array(blocks);
    this.#buckets = new Int32Array(this.#blockSlots + 1).fill(-1);
    this.#least = this.#blockSlots;
    this.#free = Array.from({ length: blocks }, (_, i) => i);
  }

  /** Slot of a page, or -1. */
  slotOf(page: number): number {
    const chunk = this.#map[Math.floor(page / CHUNK)];
    return chunk === null ? -1 : chunk![page % CHUNK]! - 1;
  }

  /** Unit of a slot. */
  unitOf(slot: number): number {
    const block = Math.floor(slot / this.#blockSlots);
    const inBlock = slot - block * this.#blockSlots;
    const slots = this.#fast[block] === 0 ? this.unitSlots : this.#fastSlots;
    return block * this.blockUnits + Math.floor(inBlock / slots);
  }

  /** Where in its unit a slot is. */
  placeInUnit(slot: number): number {
    const block = Math.floor(slot / this.#blockSlots);
    const inBlock = slot - block * this.#blockSlots;
    return inBlock %
      (this.#fast[block] === 0 ? this.unitSlots : this.#fastSlots);
  }

  /** Whether a unit is in the fast mode. */
  isFast(unit: number): boolean {
    return this.#fast[Math.floor(unit / this.blockUnits)] !== 0;
  }

  /** Slots that a unit has. */
  slotsOf(unit: number): number {
    return this.isFast(unit) ? this.#fastSlots : this.unitSlots;
  }

  /** Unit that the host's next page goes to. */
  hostUnit(): number {
    if (this.#block[HOST_STREAM]! < 0) this.#openBlock(HOST_STREAM);
    const block = this.#block[HOST_STREAM]!;
    const slots = this.#fast[block] === 0 ? this.unitSlots : this.#fastSlots;
    return block * this.blockUnits +
      Math.floor(this.#used[HOST_STREAM]! / slots);
  }

  /** Gives a page that the host writes its slot in {@linkcode hostUnit}. */
  write(page: number): void {
    this.#place(HOST_STREAM, page);
  }

  /** The host's open unit is programmed as it is: the rest of it is wasted. */
  closeHostUnit(): void {
    const unit = this.hostUnit();
    const slots = this.slotsOf(unit);
    const index = unit % this.blockUnits;
    this.#used[HOST_STREAM] = (index + 1) * slots;
    this.#unitEnd(HOST_STREAM, unit, slots);
  }

  /** Forgets where pages are. */
  unmap(first: number, count: number): void {
    const end = Math.min(first + count, this.#pages);
    for (let page = first; page < end;) {
      const next = Math.min(end, (Math.floor(page / CHUNK) + 1) * CHUNK);
      const chunk = this.#map[Math.floor(page / CHUNK)]!;
      if (chunk === null) page = next;
      for (; page < next; page++) this.#unmapIn(chunk!, page % CHUNK);
    }
  }

  #unmapIn(chunk: Uint32Array, i: number): void {
    const slot = chunk[i]! - 1;
    if (slot < 0) return;
    chunk[i] = 0;
    this.#mapped--;
    this.#invalidate(slot);
  }

  #invalidate(slot: number): void {
    const block = Math.floor(slot / this.#blockSlots);
    if (this.#state[block] === CLOSED && this.#fast[block] === 0) {
      this.#unlink(block);
      this.#valid[block]!--;
      this.#link(block);
    } else this.#valid[block]!--;
  }

  #place(stream: number, page: number): void {
    if (this.#block[stream]! < 0) this.#openBlock(stream);
    const index = Math.floor(page / CHUNK);
    const chunk = this.#map[index] ??= new Uint32Array(CHUNK);
    const old = chunk[page % CHUNK]! - 1;
    if (old < 0) this.#mapped++;
    else this.#invalidate(old);
    const block = this.#block[stream]!;
    const used = this.#used[stream]!++;
    chunk[page % CHUNK] = block * this.#blockSlots + used + 1;
    this.#pageOf[block]![used] = page;
    this.#valid[block]!++;
    this.written[stream]!++;
    const slots = this.#fast[block] === 0 ? this.unitSlots : this.#fastSlots;
    if ((used + 1) % slots === 0) {
      const unit = block * this.blockUnits + Math.floor(used / slots);
      this.#unitEnd(stream, unit, slots);
    }
  }

  #unitEnd(stream: number, unit: number, slots: number): void {
    if ((unit + 1) % this.blockUnits === 0) this.#close(stream);
    this.#owner.unitFull(stream, unit);
    if (stream === HOST_STREAM) this.#collect(slots);
  }

  #openBlock(stream: number): void {
    // The last free block is for what has to be moved.
    if (stream === HOST_STREAM) {
      while (this.#freeCount() < LOW && this.#hasVictim()) this.#moveUnit();
    }
    const block = this.#free[this.#freeHead++];
    if (block === undefined) throw new Error("BUG: no free block");
    if (this.#freeHead > 4096) {
      this.#free = this.#free.slice(this.#freeHead);
      this.#freeHead = 0;
    }
    this.#state[block] = OPEN;
    this.#fast[block] = stream === HOST_STREAM && this.#takesFast() ? 1 : 0;
    this.#fastBlocks += this.#fast[block]!;
    this.#pageOf[block] = this.#spare.pop() ??
      new Uint32Array(this.#blockSlots);
    this.#block[stream] = block;
    this.#used[stream] = 0;
  }

  #close(stream: number): void {
    const block = this.#block[stream]!;
    this.#block[stream] = -1;
    this.#state[block] = CLOSED;
    if (this.#fast[block] === 0) this.#link(block);
    else this.#fastClosed.push(block);
  }

  #freeCount(): number {
    return this.#free.length - this.#freeHead;
  }

  /** Bytes of the host's data that the fast region has room for, and which it holds. */
  get fastRoom(): number {
    const { fastShare, fastOfFree } = this.#shape;
    const free = this.#pages - this.#mapped;
    return Math.max(fastShare * this.#pages, fastOfFree * free) *
      this.pageBytes;
  }

  /** Bytes of blocks in the fast mode. */
  get fastUsed(): number {
    return this.#fastBlocks * this.blockUnits * this.#fastSlots *
      this.pageBytes;
  }

  /** Whether the fast region is full, or has not been emptied again by half. */
  get fastFull(): boolean {
    return !this.#fastOpen;
  }

  /** Whether there is something to fold. */
  get canFold(): boolean {
    return this.#fastClosed.length > 0 ||
      (this.#victim >= 0 && this.#fast[this.#victim] !== 0);
  }

  #takesFast(): boolean {
    if (this.#fastSlots === 0) return false;
    const block = this.blockUnits * this.#fastSlots * this.pageBytes;
    const room = this.fastRoom;
    if (this.#fastOpen) this.#fastOpen = this.fastUsed + block <= room;
    else this.#fastOpen = this.fastUsed <= room / 2;
    return this.#fastOpen;
  }

  /** Moves what one unit of the oldest fast block holds; how many pages. */
  fold(): number {
    return this.#hasVictim() ? this.#moveUnit() : 0;
  }

  /** Collects in step with the host, which has written `slots`. */
  #collect(slots: number): void {
    const victim = this.#victim;
    // A block that is only being folded has time.
    const begun = victim >= 0 && this.#fast[victim] === 0;
    if (this.#freeCount() > LOW && !begun) return;
    if (!this.#hasVictim()) return;
    this.#debt += slots * this.#pace;
    while (this.#debt > 0 || this.#valid[this.#victim] === 0) {
      this.#debt -= this.#moveUnit();
      if (this.#victim >= 0) continue;
      if (this.#freeCount() > LOW) this.#debt = 0;
      if (this.#freeCount() > LOW || !this.#hasVictim()) return;
    }
  }

  /** Whether there is a block to be emptied; chooses one. */
  #hasVictim(): boolean {
    if (this.#victim >= 0) return true;
    const block = this.#fastClosed.shift() ?? this.#emptiest();
    if (block < 0) return false;
    this.#state[block] = VICTIM;
    this.#victim = block;
    this.#victimUnit = 0;
    const valid = this.#valid[block]!;
    this.#pace = valid / (this.#blockSlots - valid);
    return true;
  }

  #emptiest(): number {
    while (this.#least < this.#blockSlots) {
      const block = this.#buckets[this.#least]!;
      if (block >= 0) {
        this.#unlink(block);
        return block;
      }
      this.#least++;
    }
    // A block in which all is valid gains nothing.
    return -1;
  }

  /** Moves what the victim's next unit holds, and frees it after the last; pages moved. */
  #moveUnit(): number {
    const block = this.#victim;
    const slots = this.#fast[block] === 0 ? this.unitSlots : this.#fastSlots;
    const first = this.#victimUnit * slots;
    const pageOf = this.#pageOf[block]!;
    let moved = 0;
    const end = this.#valid[block] === 0 ? first : first + slots;
    for (let i = first; i < end; i++) {
      if (this.slotOf(pageOf[i]!) !== block * this.#blockSlots + i) continue;
      this.#place(MOVE_STREAM, pageOf[i]!);
      moved++;
    }
    const unit = block * this.blockUnits + this.#victimUnit;
    if (moved > 0) this.#owner.unitMoved(unit, moved);
    this.#victimUnit++;
    if (this.#valid[block] === 0 || this.#victimUnit === this.blockUnits) {
      this.#erase(block);
    }
    return moved;
  }

  #erase(block: number): void {
    this.#victim = -1;
    this.#state[block] = FREE;
    this.#fastBlocks -= this.#fast[block]!;
    this.#fast[block] = 0;
    this.#spare.push(this.#pageOf[block]!);
    this.#pageOf[block] = null;
    this.#free.push(block);
    this.#owner.erased();
  }

  #link(block: number): void {
    const valid = this.#valid[block]!;
    const head = this.#buckets[valid]!;
    this.#before[block] = -1;
    this.#after[block] = head;
    if (head >= 0) this.#before[head] = block;
    this.#buckets[valid] = block;
    if (valid < this.#least) this.#least = valid;
  }

  #unlink(block: number): void {
    const before = this.#before[block]!;
    const after = this.#after[block]!;
    if (before >= 0) this.#after[before] = after;
    else this.#buckets[this.#valid[block]!] = after;
    if (after >= 0) this.#before[after] = before;
  }
}
