/**
 * Mappings of a fake file, as a process sees them: accesses that fault until they
 * get on.
 */
import { andThen, type MaybePromise, repeat } from "../../lib/maybe-promise.ts";
import { folioLock, PAGE_SIZE } from "../../mm/folio.ts";
import { folioMarkDirty } from "../../mm/filemap.ts";
import {
  FAULT_FLAG_TRIED,
  filemapFault,
  filemapMapPages,
  handleMmFault,
  VM_FAULT_ERROR,
  VM_FAULT_LOCKED,
  vmaLoad,
  vmaPresent,
  vmaStore,
  VmFault,
  type VmOperations,
} from "../../mm/mmap.ts";
import { VM_SHARED, VM_WRITE, vmaLink, VmArea } from "../../mm/rmap.ts";
import { FileRaState } from "../../mm/readahead.ts";
import type { FakeFile } from "./fake_file.ts";

export class FakeMapping implements VmOperations {
  readonly file: FakeFile;
  readonly vma: VmArea;
  readonly ra: FileRaState = new FileRaState();
  /** Fault codes, in order. */
  readonly codes: number[] = [];
  /** Pages of page_mkwrite. */
  readonly mkwrites: number[] = [];
  /** What page_mkwrite answers instead, if not 0. */
  refuse = 0;
  mapPages?: (vmf: VmFault, first: number, last: number) => number;

  constructor(
    file: FakeFile,
    pages: number,
    { shared = true, around = true, first = 0 } = {},
  ) {
    this.file = file;
    if (around) this.mapPages = filemapMapPages;
    const flags = VM_WRITE | (shared ? VM_SHARED : 0);
    const last = first + pages - 1;
    this.vma = new VmArea(file.mapping, this.ra, first, last, flags, this);
    vmaLink(this.vma);
  }

  fault(vmf: VmFault): MaybePromise<number> {
    return filemapFault(vmf);
  }

  pageMkwrite(vmf: VmFault): MaybePromise<number> {
    this.mkwrites.push(vmf.index);
    if (this.refuse !== 0) return this.refuse;
    return andThen(folioLock(vmf.folio!), () => {
      folioMarkDirty(vmf.folio!);
      return VM_FAULT_LOCKED;
    });
  }

  /** Bytes loaded before the first fault that says why not. */
  load(pos: number, len: number): MaybePromise<Uint8Array> {
    const p = new Uint8Array(len);
    const done = this.#access(pos, p, false);
    return andThen(done, (n) => p.subarray(0, n));
  }

  /** Number of bytes stored before the first fault that says why not. */
  store(pos: number, p: Uint8Array): MaybePromise<number> {
    return this.#access(pos, p, true);
  }

  #access(pos: number, p: Uint8Array, write: boolean): MaybePromise<number> {
    const { vma } = this;
    let done = 0;
    let tried = false;
    const more = () => {
      const before = done;
      done = write
        ? vmaStore(vma, pos + done, p, done)
        : vmaLoad(vma, pos + done, p, done);
      if (done > before) tried = false;
      return done < p.length && vma.mapped;
    };
    if (!more()) return done;
    const walked = repeat(() => {
      const index = Math.floor((pos + done) / PAGE_SIZE);
      const vmf = new VmFault(vma, index, write);
      if (tried) vmf.flags |= FAULT_FLAG_TRIED;
      tried = true;
      return andThen(handleMmFault(vmf), (code) => {
        this.codes.push(code);
        const again = (code & VM_FAULT_ERROR) === 0 && more();
        vmf.release();
        return again;
      });
    });
    return andThen(walked, () => done);
  }

  /** The pages that are shown. */
  shown(): number[] {
    const pages: number[] = [];
    for (let i = this.vma.first; i <= this.vma.last; i++) {
      if (vmaPresent(this.vma, i, false)) pages.push(i);
    }
    return pages;
  }

  /** The pages that may be stored to. */
  writable(): number[] {
    return this.shown().filter((i) => vmaPresent(this.vma, i, true));
  }
}
