/**
 * What a file system should hold: a tree of names, with the bytes of files as a plain
 * map of small pieces, so that a file may be sparse.
 *
 * @module
 */

/** Bytes of a piece: no block is smaller, so collapsing and inserting move whole
 * pieces. */
export const PIECE = 1024;

/** Bytes of a file. Beyond the size everything is zero. */
export class Content {
  size = 0;
  /** Pieces by number; an absent one is zero. */
  pieces: Map<number, Uint8Array> = new Map();

  #piece(index: number): Uint8Array {
    let piece = this.pieces.get(index);
    if (piece === undefined) {
      piece = new Uint8Array(PIECE);
      this.pieces.set(index, piece);
    }
    return piece;
  }

  /** Puts bytes there; the file may grow. */
  write(at: number, data: Uint8Array): void {
    this.store(at, data);
    if (data.length > 0) this.size = Math.max(this.size, at + data.length);
  }

  /** Puts bytes there; the file does not grow. */
  store(at: number, data: Uint8Array): void {
    for (let done = 0; done < data.length;) {
      const pos = at + done;
      const from = pos % PIECE;
      const n = Math.min(PIECE - from, data.length - done);
      const index = Math.floor(pos / PIECE);
      this.#piece(index).set(data.subarray(done, done + n), from);
      done += n;
    }
  }

  /** What is there, zeroes where there is nothing. */
  read(at: number, length: number): Uint8Array {
    const data = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const pos = at + done;
      const from = pos % PIECE;
      const n = Math.min(PIECE - from, length - done);
      const piece = this.pieces.get(Math.floor(pos / PIECE));
      if (piece !== undefined) data.set(piece.subarray(from, from + n), done);
      done += n;
    }
    return data;
  }

  /** Zeroes from `from` to `to`. */
  zero(from: number, to: number): void {
    for (const [index, piece] of this.pieces) {
      const start = index * PIECE;
      if (start >= to || start + PIECE <= from) continue;
      if (from <= start && to >= start + PIECE) this.pieces.delete(index);
      else {piece.fill(
          0,
          Math.max(0, from - start),
          Math.min(PIECE, to - start),
        );}
    }
  }

  /** Sets the size. */
  truncate(size: number): void {
    if (size < this.size) this.zero(size, this.size);
    this.size = size;
  }

  /** Takes whole pieces away, and closes the gap. */
  collapse(at: number, length: number): void {
    this.zero(at, at + length);
    this.#move(at + length, -length);
    this.size -= length;
  }

  /** Opens a gap of whole pieces. */
  insert(at: number, length: number): void {
    this.#move(at, length);
    this.size += length;
  }

  #move(from: number, by: number): void {
    const moved = new Map<number, Uint8Array>();
    for (const [index, piece] of this.pieces) {
      const moves = index * PIECE >= from;
      moved.set(moves ? index + by / PIECE : index, piece);
    }
    this.pieces = moved;
  }

  /** Puts a range of another there, or of itself. */
  copy(source: Content, from: number, at: number, length: number): void {
    const found: [number, Uint8Array][] = [];
    for (const index of source.pieces.keys()) {
      const start = Math.max(from, index * PIECE);
      const end = Math.min(from + length, (index + 1) * PIECE);
      if (start >= end) continue;
      found.push([at + start - from, source.read(start, end - start)]);
    }
    this.zero(at, at + length);
    for (const [pos, data] of found) this.store(pos, data);
    if (length > 0) this.size = Math.max(this.size, at + length);
  }
}

/** A file, directory or link. */
export interface Node {
  readonly kind: "file" | "dir" | "link";
  nlink: number;
  mode: number;
  readonly xattrs: Map<string, Uint8Array>;
  /** Of a file. */
  readonly content: Content;
  /** Of a directory. */
  readonly children: Map<string, Node>;
  /** Of a link. */
  readonly target: string;
  /** Of a directory: the one that it is in, and its name there; null for the root. */
  parent: Entry | null;
}

/** A name in a directory. */
export interface Entry {
  readonly dir: Node;
  readonly name: string;
}

/** A new file, directory or link, without a name yet. */
export function newNode(kind: Node["kind"], mode: number, target = ""): Node {
  return {
    kind,
    nlink: kind === "dir" ? 2 : 1,
    mode,
    xattrs: new Map(),
    content: new Content(),
    children: new Map(),
    target,
    parent: null,
  };
}

/** Where a directory is. */
export function pathOf(dir: Node): string {
  return dir.parent === null
    ? ""
    : `${pathOf(dir.parent.dir)}/${dir.parent.name}`;
}

/** Whether a directory is another one, or above it. */
export function isAbove(dir: Node, other: Node): boolean {
  for (let at: Node | null = other; at !== null; at = at.parent?.dir ?? null) {
    if (at === dir) return true;
  }
  return false;
}

/** Gives a node a name that is free. */
export function addEntry({ dir, name }: Entry, node: Node): void {
  dir.children.set(name, node);
  if (node.kind !== "dir") return;
  node.parent = { dir, name };
  dir.nlink++;
}

/** Takes a name away. */
export function removeEntry({ dir, name }: Entry): void {
  const node = dir.children.get(name)!;
  dir.children.delete(name);
  if (node.kind === "dir") dir.nlink--;
}
