/**
 * The check finds each mistake of the table in chapter 12 of the format: planted one
 * at a time in an image that the kernel has filled, with the checksum mended.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { createNvme, MemoryMedia, VirtualClock } from "../../../mod.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../../../fs/fs.ts";
import { fsckXfs } from "../../../fs/xfs/fsck/fsck.ts";
import { getU64, putU64 } from "../../../fs/xfs/libxfs/bytes.ts";
import * as F from "../../../fs/xfs/libxfs/format.ts";
import { mkfsXfs } from "../../../fs/xfs/mkfs.ts";
import { Prng } from "../../../lib/prng.ts";
import { assertCleanImage } from "./clean.ts";
import { Image } from "./image.ts";

const CLEAN = await Image.kernel();

const add32 = (view: DataView, at: number, n: number) =>
  view.setUint32(at, view.getUint32(at) + n);
const add16 = (view: DataView, at: number, n: number) =>
  view.setUint16(at, view.getUint16(at) + n);
const add64 = (view: DataView, at: number, n: number) =>
  putU64(view, at, getU64(view, at) + n);
const kind = (view: DataView) => view.getUint16(F.DI_MODE) & S_IFMT;
const format = (view: DataView) => view.getUint8(F.DI_FORMAT);
const isSfDir = (view: DataView) =>
  kind(view) === S_IFDIR && format(view) === F.XFS_DINODE_FMT_LOCAL &&
  view.getUint8(F.DI_SIZE_V3) > 2;
const isShared = (view: DataView) =>
  kind(view) === S_IFREG &&
  (view.getUint32(F.DI_FLAGS2 + 4) & F.XFS_DIFLAG2_REFLINK) !== 0;

/** Changes a tree's first leaf that passes a test. */
function leaf(
  image: Image,
  magic: number,
  change: (view: DataView) => void,
  least = 1,
): void {
  const agbno = image.find(
    magic,
    (view) =>
      view.getUint16(F.BB_LEVEL) === 0 && view.getUint16(F.BB_NUMRECS) >= least,
  );
  image.block(0, agbno, change);
}

/** Bytes of the entries of a directory block behind "." and "..". */
function entries(view: DataView): number[] {
  const all: number[] = [];
  const count = view.getUint32(view.byteLength - 8);
  const end = view.byteLength - 8 - 8 * count;
  for (let at = 0x60; at < end;) {
    if (view.getUint16(at) === 0xffff) {
      at += view.getUint16(at + 2);
      continue;
    }
    all.push(at);
    at += Math.ceil((12 + view.getUint8(at + 8)) / 8) * 8;
  }
  return all;
}

/** Byte of the n-th record of a leaf. */
const rec = (n: number, bytes: number) =>
  F.XFS_BTREE_SBLOCK_CRC_LEN + n * bytes;
/** Same, of mappings. */
const lrec = (n: number) => F.XFS_BTREE_LBLOCK_CRC_LEN + n * 16;

type Mistake = [name: string, plant: (image: Image) => void, expect: RegExp];

const MISTAKES: Mistake[] = [
  // ---- super blocks and log ----
  [
    "sb_fdblocks",
    (i) => i.header(0, 0, (v) => add64(v, F.SB_FDBLOCKS, 5)),
    /sb_fdblocks \d+, counted \d+/,
  ],
  [
    "sb_icount",
    (i) => i.header(0, 0, (v) => add64(v, F.SB_ICOUNT, 64)),
    /sb_icount \d+, counted \d+/,
  ],
  [
    "sb_ifree",
    (i) => i.header(0, 0, (v) => add64(v, F.SB_IFREE, 1)),
    /sb_ifree \d+, counted \d+/,
  ],
  ["sb CRC", (i) => i.data[F.SB_CRC]! ^= 1, /superblock - checksum/],
  [
    "sb_inprogress",
    (i) => i.header(0, 0, (v) => v.setUint8(F.SB_INPROGRESS, 1)),
    /inprogress 1/,
  ],
  [
    "sb_rootino",
    (i) => i.header(0, 0, (v) => add64(v, F.SB_ROOTINO, 64)),
    /sb root inode value \d+ inconsistent with calculated value \d+/,
  ],
  [
    "unused bytes of the sb",
    (i) => i.header(0, 0, (v) => v.setUint8(300, 1)),
    /unused portion/,
  ],
  [
    "sb_bad_features2",
    (i) => i.header(0, 0, (v) => v.setUint32(F.SB_BAD_FEATURES2, 0)),
    /bad_features2/,
  ],
  [
    "secondary geometry",
    (i) => i.header(1, 0, (v) => add32(v, F.SB_AGBLOCKS, 1)),
    /secondary superblock 1 conflict - .* geometry/,
  ],
  [
    "secondary uuid",
    (i) => i.header(1, 0, (v) => v.setUint8(F.SB_UUID, 1)),
    /secondary superblock 1 conflict - uuid/,
  ],
  ["secondary CRC", (i) => {
    i.data[i.sb.agHeaderDaddr(1, 0) * 512 + F.SB_CRC]! ^= 1;
  }, /secondary superblock 1 conflict - bad CRC/],
  [
    "secondary magic",
    (i) => i.header(1, 0, (v) => v.setUint32(0, 0)),
    /secondary superblock 1 conflict - bad magic/,
  ],
  [
    "metadata LSN",
    (i) => i.header(1, 1, (v) => v.setUint32(F.AGF_LSN, 9)),
    /agf 1: LSN \(9:\d+\) is ahead of log \(2:2\)/,
  ],
  ["log uuid", (i) => {
    i.data[i.sb.fsbToByte(i.sb.logstart) + 304]! ^= 1;
  }, /mismatched uuid in log/],
  ["zeroed log", (i) => {
    const at = i.sb.fsbToByte(i.sb.logstart);
    i.data.fill(0, at, at + i.sb.logblocks * i.sb.blocksize);
  }, /totally zeroed log/],
  ["dirty log", (i) => {
    i.data[i.sb.fsbToByte(i.sb.logstart) + 512 + 9] = 0;
  }, /log is dirty/],
  ["garbage for a log", (i) => {
    i.data[i.sb.fsbToByte(i.sb.logstart)] = 7;
  }, /log inconsistent/],
  // ---- group headers ----
  [
    "agf_longest",
    (i) => i.header(1, 1, (v) => v.setUint32(F.AGF_LONGEST, 10)),
    /agf_longest 10, counted \d+ in ag 1/,
  ],
  [
    "agf_freeblks",
    (i) => i.header(1, 1, (v) => add32(v, F.AGF_FREEBLKS, -1)),
    /agf_freeblks \d+, counted \d+ in ag 1/,
  ],
  [
    "agf_flcount",
    (i) => i.header(1, 1, (v) => add32(v, F.AGF_FLCOUNT, -1)),
    /freeblk count 6 != flcount 5 in ag 1/,
  ],
  ["AGFL entry lost", (i) =>
    i.header(1, 1, (v) => {
      add32(v, F.AGF_FLCOUNT, -1);
      add32(v, F.AGF_FLLAST, -1);
    }), /unknown block state, ag 1, blocks \d+-\d+/],
  ["AGFL holds a used block", (i) => {
    const first = i.viewHeader(0, 1).getUint32(F.AGF_FLFIRST);
    const chunk = i.sb.aginoToAgbno(i.sb.rootino);
    i.header(0, 3, (v) => v.setUint32(F.AGFL_BNO + 4 * first, chunk));
  }, /claims used block 0\/\d+/],
  ["AGFL holds no block", (i) => {
    const first = i.viewHeader(0, 1).getUint32(F.AGF_FLFIRST);
    i.header(0, 3, (v) => v.setUint32(F.AGFL_BNO + 4 * first, 2 ** 31));
  }, /bad agbno 2147483648 in agfl, agno 0/],
  [
    "agf_btreeblks",
    (i) => i.header(1, 1, (v) => add32(v, F.AGF_BTREEBLKS, 3)),
    /agf_btreeblks 3, counted 0 in ag 1/,
  ],
  [
    "agf_rmapblocks",
    (i) => i.header(1, 1, (v) => add32(v, F.AGF_RMAPBLOCKS, 2)),
    /bad rmapbt block count 3, saw 1/,
  ],
  [
    "agf_refcntblocks",
    (i) => i.header(1, 1, (v) => add32(v, F.AGF_REFCNTBLOCKS, 2)),
    /bad refcountbt block count 3, saw 1/,
  ],
  [
    "agf_bnolevel",
    (i) => i.header(1, 1, (v) => v.setUint32(F.AGF_BNOLEVEL, 2)),
    /expected level 1 got 0 in bnobt block 1\/\d+/,
  ],
  [
    "agf level beyond all",
    (i) => i.header(1, 1, (v) => v.setUint32(F.AGF_CNTLEVEL, 200)),
    /bad levels 200 for cntbt/,
  ],
  [
    "agf root",
    (i) => i.header(1, 1, (v) => v.setUint32(F.AGF_CNTROOT, 0)),
    /bad agbno 0 for cntbt/,
  ],
  ["agf CRC", (i) => {
    i.data[i.sb.agHeaderDaddr(1, 1) * 512 + F.AGF_CRC]! ^= 1;
  }, /agf 1: bad CRC/],
  [
    "agf seqno",
    (i) => i.header(1, 1, (v) => v.setUint32(F.AGF_SEQNO, 0)),
    /agf 1: expected owner 1, got 0/,
  ],
  [
    "agf length",
    (i) => i.header(1, 1, (v) => add32(v, F.AGF_LENGTH, -1)),
    /bad length \d+ for agf 1/,
  ],
  [
    "agf uuid",
    (i) => i.header(1, 1, (v) => v.setUint8(F.AGF_UUID, 0)),
    /agf 1: bad uuid/,
  ],
  [
    "agi_count",
    (i) => i.header(0, 2, (v) => add32(v, F.AGI_COUNT, 64)),
    /agi_count \d+, counted \d+ in ag 0/,
  ],
  [
    "agi_freecount",
    (i) => i.header(0, 2, (v) => add32(v, F.AGI_FREECOUNT, 1)),
    /agi_freecount \d+, counted \d+ in ag 0/,
  ],
  [
    "agi ino_blocks",
    (i) => i.header(0, 2, (v) => add32(v, F.AGI_IBLOCKS, 6)),
    /bad inobt block count 7, saw 1/,
  ],
  [
    "agi fino_blocks",
    (i) => i.header(0, 2, (v) => add32(v, F.AGI_FBLOCKS, 6)),
    /bad finobt block count 7, saw 1/,
  ],
  ["agi CRC", (i) => {
    i.data[i.sb.agHeaderDaddr(1, 2) * 512 + F.AGI_CRC]! ^= 1;
  }, /agi 1: bad CRC/],
  [
    "unlinked list",
    (i) => i.header(0, 2, (v) => v.setUint32(F.AGI_UNLINKED + 28, 135)),
    /agi unlinked bucket 7 is 135 in ag 0/,
  ],
  // ---- trees of free space ----
  ["btree block CRC", (i) => {
    const at = i.find(F.XFS_ABTB_CRC_MAGIC);
    i.data[i.sb.agbToDaddr(0, at) * 512 + F.SBB_CRC]! ^= 1;
  }, /bnobt block 0\/\d+: bad CRC/],
  [
    "bnobt differs from cntbt",
    (i) => leaf(i, F.XFS_ABTC_CRC_MAGIC, (v) => add32(v, rec(0, 8), 1)),
    /only seen by one free space btree/,
  ],
  ["cntbt out of order", (i) =>
    leaf(i, F.XFS_ABTC_CRC_MAGIC, (v) => {
      const a = getU64(v, rec(1, 8));
      putU64(v, rec(1, 8), getU64(v, rec(2, 8)));
      putU64(v, rec(2, 8), a);
    }, 4), /out of order in cntbt/],
  ["free extents touch", (i) =>
    leaf(i, F.XFS_ABTB_CRC_MAGIC, (v) => {
      const end = v.getUint32(rec(1, 8));
      v.setUint32(rec(0, 8) + 4, end - v.getUint32(rec(0, 8)));
    }, 2), /should be merged with the one before/],
  [
    "free extent lost",
    (i) => leaf(i, F.XFS_ABTB_CRC_MAGIC, (v) => add16(v, F.BB_NUMRECS, -1)),
    /unknown block state, ag 0/,
  ],
  [
    "free extent in use",
    (i) => leaf(i, F.XFS_ABTB_CRC_MAGIC, (v) => add32(v, rec(1, 8) + 4, 1), 3),
    /claims free block 0\/\d+/,
  ],
  ["node key", (i) => {
    const at = i.find(F.XFS_ABTB_CRC_MAGIC, (v) => v.getUint16(F.BB_LEVEL) > 0);
    i.block(0, at, (v) => add32(v, rec(1, 8), 1));
  }, /key .* is not that of its first record/],
  ["node pointer twice", (i) => {
    const at = i.find(F.XFS_ABTB_CRC_MAGIC, (v) => v.getUint16(F.BB_LEVEL) > 0);
    const ptrs = rec(80, 8);
    i.block(0, at, (v) => v.setUint32(ptrs + 4, v.getUint32(ptrs)));
  }, /is met twice/],
  ["node pointer nowhere", (i) => {
    const at = i.find(F.XFS_ABTB_CRC_MAGIC, (v) => v.getUint16(F.BB_LEVEL) > 0);
    i.block(0, at, (v) => v.setUint32(rec(80, 8), 0x7fff_ffff));
  }, /bad pointer 2147483647/],
  ["sibling", (i) => {
    const at = i.find(
      F.XFS_ABTB_CRC_MAGIC,
      (v) => v.getUint32(F.SBB_RIGHTSIB) !== F.NULLAGBLOCK,
    );
    i.block(0, at, (v) => v.setUint32(F.SBB_RIGHTSIB, F.NULLAGBLOCK));
  }, /bad fwd \(right\) sibling pointer \(saw NULL should be \d+\)/],
  ["too few records", (i) => {
    const at = i.find(
      F.XFS_ABTB_CRC_MAGIC,
      (v) => v.getUint32(F.SBB_RIGHTSIB) !== F.NULLAGBLOCK,
    );
    i.block(0, at, (v) => v.setUint16(F.BB_NUMRECS, 3));
  }, /bad btree nrecs \(3, min=60, max=121\)/],
  [
    "too many records",
    (i) => leaf(i, F.XFS_ABTB_CRC_MAGIC, (v) => v.setUint16(F.BB_NUMRECS, 500)),
    /bad btree nrecs \(500,/,
  ],
  [
    "block of another group",
    (i) => leaf(i, F.XFS_ABTB_CRC_MAGIC, (v) => v.setUint32(F.SBB_OWNER, 1)),
    /expected owner 0, got 1/,
  ],
  [
    "block of another place",
    (i) => leaf(i, F.XFS_ABTB_CRC_MAGIC, (v) => add64(v, F.SBB_BLKNO, 2)),
    /blkno \d+, lies at \d+/,
  ],
  // ---- inode trees ----
  [
    "inobt freecount",
    (i) => leaf(i, F.XFS_IBT_CRC_MAGIC, (v) => v.setUint8(rec(0, 16) + 7, 23)),
    /ir_freecount\/free mismatch, inode chunk 0\/\d+, freecount 23/,
  ],
  [
    "inobt bit set",
    (i) => leaf(i, F.XFS_IBT_CRC_MAGIC, (v) => add32(v, rec(0, 16) + 12, 1)),
    /imap claims in-use inode \d+ is free/,
  ],
  ["inobt bit clear", (i) => {
    leaf(i, F.XFS_IBT_CRC_MAGIC, (v) => {
      v.setUint32(rec(1, 16) + 8, 0);
      v.setUint32(rec(1, 16) + 12, 0);
    }, 2);
    leaf(i, F.XFS_FIBT_CRC_MAGIC, () => {});
  }, /ir_freecount|imap claims a free inode/],
  ["finobt differs", (i) =>
    leaf(i, F.XFS_FIBT_CRC_MAGIC, (v) => {
      const bits = v.getUint32(rec(0, 16) + 8);
      v.setUint32(rec(0, 16) + 8, bits ^ 1);
    }), /finobt ir_freecount\/free mismatch/],
  [
    "finobt record lost",
    (i) => leaf(i, F.XFS_FIBT_CRC_MAGIC, (v) => add16(v, F.BB_NUMRECS, -1)),
    /finobt lacks the record/,
  ],
  [
    "inobt record lost",
    (i) => leaf(i, F.XFS_IBT_CRC_MAGIC, (v) => add16(v, F.BB_NUMRECS, -1)),
    /unknown block state|undiscovered finobt record/,
  ],
  [
    "inobt out of order",
    (i) =>
      leaf(
        i,
        F.XFS_IBT_CRC_MAGIC,
        (v) => v.setUint32(rec(1, 16), v.getUint32(rec(0, 16))),
        2,
      ),
    /out of order, or overlaps/,
  ],
  [
    "inobt hole in use",
    (i) => leaf(i, F.XFS_IBT_CRC_MAGIC, (v) => v.setUint16(rec(0, 16) + 4, 1)),
    /of a hole is in use|holemask mismatch/,
  ],
  // ---- inodes ----
  ["inode CRC", (i) => {
    i.data[i.inodeAt(i.findInode(isSfDir)) + F.DI_CRC]! ^= 1;
  }, /bad CRC for inode \d+/],
  ["di_ino", (i) => {
    const ino = i.findInode(isShared);
    i.inode(ino, (v) => add64(v, F.DI_INO, 1));
  }, /inode identifier \d+ mismatch on inode \d+/],
  [
    "di_nblocks",
    (i) => i.inode(i.findInode(isShared), (v) => add64(v, F.DI_NBLOCKS, 3)),
    /bad nblocks \d+ for inode \d+, counted \d+/,
  ],
  ["di_nextents", (i) =>
    i.inode(
      i.findInode((v) => isShared(v) && v.getUint32(F.DI_NEXTENTS) > 1),
      (v) => add32(v, F.DI_NEXTENTS, -1),
    ), /bad nblocks|unknown block state/],
  [
    "di_nextents beyond the fork",
    (i) =>
      i.inode(i.findInode(isShared), (v) => v.setUint32(F.DI_NEXTENTS, 10_000)),
    /bad nextents 10000, room for \d+/,
  ],
  [
    "nlink of a file",
    (i) => i.inode(i.findInode(isShared), (v) => v.setUint32(F.DI_NLINK, 3)),
    /has nlinks 3, counted 1/,
  ],
  [
    "nlink of a directory",
    (i) => i.inode(i.findInode(isSfDir), (v) => v.setUint32(F.DI_NLINK, 9)),
    /has nlinks 9, counted \d+/,
  ],
  ["reflink flag missing", (i) =>
    i.inode(i.findInode(isShared), (v) => {
      const flags = v.getUint32(F.DI_FLAGS2 + 4);
      v.setUint32(F.DI_FLAGS2 + 4, flags & ~F.XFS_DIFLAG2_REFLINK);
    }), /shares block 0\/\d+ without the reflink flag/],
  [
    "mode that is no type",
    (i) =>
      i.inode(i.findInode(isShared), (v) => v.setUint16(F.DI_MODE, 0o110000)),
    /bad mode/,
  ],
  [
    "mode 0",
    (i) => i.inode(i.findInode(isShared), (v) => v.setUint16(F.DI_MODE, 0)),
    /imap claims a free inode \d+ is in use/,
  ],
  [
    "format of a file",
    (i) => i.inode(i.findInode(isShared), (v) => v.setUint8(F.DI_FORMAT, 1)),
    /bad data fork format 1/,
  ],
  [
    "forkoff",
    (i) => i.inode(i.findInode(isShared), (v) => v.setUint8(F.DI_FORKOFF, 200)),
    /bad forkoff 200/,
  ],
  [
    "flags2 unknown",
    (i) => i.inode(i.findInode(isShared), (v) => v.setUint32(F.DI_FLAGS2, 1)),
    /bad flags2/,
  ],
  [
    "hint without its flag",
    (i) => i.inode(i.findInode(isShared), (v) => v.setUint32(F.DI_EXTSIZE, 16)),
    /extsize 16 without its flag/,
  ],
  [
    "next_unlinked",
    (i) =>
      i.inode(i.findInode(isShared), (v) => v.setUint32(F.DI_NEXT_UNLINKED, 5)),
    /is on an unlinked list, next 5/,
  ],
  // ---- mappings ----
  [
    "bmbt sibling",
    (i) => {
      const at = i.find(
        F.XFS_BMAP_CRC_MAGIC,
        (v) => getU64(v, F.LBB_RIGHTSIB) !== F.NULLFSBLOCK,
      );
      i.block(0, at, (v) => putU64(v, F.LBB_RIGHTSIB, 2123));
    },
    /bad fwd \(right\) sibling pointer \(saw 2123 should be \d+\) in bmap btree/,
  ],
  ["bmbt order", (i) => {
    const at = i.find(F.XFS_BMAP_CRC_MAGIC);
    i.block(0, at, (v) => {
      for (let k = 0; k < 16; k++) {
        v.setUint8(lrec(2) + k, v.getUint8(lrec(1) + k));
      }
    });
  }, /bmap rec out of order/],
  ["bmbt blocks beyond the group", (i) => {
    const at = i.find(F.XFS_BMAP_CRC_MAGIC);
    i.block(0, at, (v) => v.setUint32(lrec(1) + 8, 0x7fff_ffff));
  }, /bad blocks, entry 1/],
  ["bmbt owner", (i) => {
    const at = i.find(F.XFS_BMAP_CRC_MAGIC);
    i.block(0, at, (v) => putU64(v, F.LBB_OWNER, 5));
  }, /expected owner \d+, got 5/],
  ["extent moved", (i) => {
    const ino = i.findInode((v) =>
      kind(v) === S_IFREG && format(v) === F.XFS_DINODE_FMT_EXTENTS &&
      v.getUint32(F.DI_NEXTENTS) === 1 && !isShared(v)
    );
    i.inode(ino, (v) => {
      const word = v.getUint32(F.DI_SIZE_V3 + 12);
      v.setUint32(F.DI_SIZE_V3 + 12, word + 2 ** 21);
    });
  }, /unknown block state|claims used block|claims free block/],
  ["written instead of unwritten", (i) => {
    const ino = i.findInode((v) =>
      kind(v) === S_IFREG && format(v) === F.XFS_DINODE_FMT_EXTENTS &&
      v.getUint8(F.DI_SIZE_V3) >= 0x80 && v.getUint32(F.DI_NEXTENTS) > 0
    );
    i.inode(ino, (v) => v.setUint8(F.DI_SIZE_V3, 0));
  }, /Incorrect reverse-mapping: saw .*unwritten/],
  // ---- shared blocks and owners ----
  [
    "refcount",
    (i) => leaf(i, F.XFS_REFC_CRC_MAGIC, (v) => add32(v, rec(0, 12) + 8, 1)),
    /Incorrect reference count: saw \(0\/\d+\) len \d+ nlinks \d+; should be/,
  ],
  ["refcount not merged", (i) =>
    leaf(i, F.XFS_REFC_CRC_MAGIC, (v) => {
      const count = v.getUint16(F.BB_NUMRECS);
      const last = rec(count - 1, 12);
      const len = v.getUint32(last + 4);
      v.setUint32(last + 4, len - 1);
      v.setUint32(last + 12, v.getUint32(last) + len - 1);
      v.setUint32(last + 16, 1);
      v.setUint32(last + 20, v.getUint32(last + 8));
      v.setUint16(F.BB_NUMRECS, count + 1);
    }), /should be merged with previous record/],
  [
    "refcount record lost",
    (i) => leaf(i, F.XFS_REFC_CRC_MAGIC, (v) => add16(v, F.BB_NUMRECS, -1)),
    /Incorrect reference count: saw none; should be/,
  ],
  ["leftover CoW extent", (i) =>
    leaf(i, F.XFS_REFC_CRC_MAGIC, (v) => {
      const count = v.getUint16(F.BB_NUMRECS);
      v.setUint32(rec(count, 12), 2 ** 31 + 9000);
      v.setUint32(rec(count, 12) + 4, 1);
      v.setUint32(rec(count, 12) + 8, 1);
      v.setUint16(F.BB_NUMRECS, count + 1);
    }), /leftover CoW extent \(0\/9000\) len 1/],
  ["rmap lost", (i) =>
    leaf(i, F.XFS_RMAP_CRC_MAGIC, (v) => {
      const count = v.getUint16(F.BB_NUMRECS);
      v.setUint16(F.BB_NUMRECS, count - 1);
    }), /Missing reverse-mapping record for|high key/],
  [
    "rmap of another owner",
    (i) => leaf(i, F.XFS_RMAP_CRC_MAGIC, (v) => putU64(v, rec(1, 24) + 8, 137)),
    /reverse-mapping of what is not so|Missing reverse-mapping/,
  ],
  [
    "rmap length",
    (i) => leaf(i, F.XFS_RMAP_CRC_MAGIC, (v) => add32(v, rec(0, 24) + 4, 1)),
    /Incorrect reverse-mapping/,
  ],
  ["rmap high key", (i) => {
    const at = i.find(F.XFS_RMAP_CRC_MAGIC, (v) => v.getUint16(F.BB_LEVEL) > 0);
    i.block(0, at, (v) => add32(v, rec(0, 40) + 20, 1));
  }, /high key .* is not its highest/],
  // ---- directories ----
  [
    "shortform size",
    (i) => i.inode(i.findInode(isSfDir), (v) => add64(v, F.DI_SIZE, 4)),
    /size \d+, counted \d+/,
  ],
  [
    "shortform offsets",
    (i) =>
      i.inode(i.findInode(isSfDir), (v) => v.setUint16(F.DI_SIZE_V3 + 7, 8)),
    /contains offset 8 out of order in shortform dir/,
  ],
  ["shortform parent", (i) => {
    const ino = i.findInode((v) =>
      isSfDir(v) && getU64(v, F.DI_INO) !== i.sb.rootino
    );
    i.inode(ino, (v) => v.setUint32(F.DI_SIZE_V3 + 2, ino));
  }, /bad .. entry in directory inode \d+, points to self/],
  [
    "shortform i8count",
    (i) =>
      i.inode(i.findInode(isSfDir), (v) => v.setUint8(F.DI_SIZE_V3 + 1, 1)),
    /does not fit|counted/,
  ],
  ["shortform ftype", (i) =>
    i.inode(i.findInode(isSfDir), (v) => {
      const namelen = v.getUint8(F.DI_SIZE_V3 + 6);
      v.setUint8(F.DI_SIZE_V3 + 9 + namelen, 7);
    }), /ftype mismatch \(7\/\d\) in directory\/child inode/],
  ["entry to a free inode", (i) =>
    i.inode(i.findInode(isSfDir), (v) => {
      const namelen = v.getUint8(F.DI_SIZE_V3 + 6);
      const chunk = i.findInode(() => true);
      let free = chunk;
      while (i.viewInode(free).getUint16(F.DI_MODE) !== 0) free++;
      v.setUint32(F.DI_SIZE_V3 + 10 + namelen, free);
    }), /references free inode \d+|references non-existent/],
  ["entry to no inode", (i) =>
    i.inode(i.findInode(isSfDir), (v) => {
      const namelen = v.getUint8(F.DI_SIZE_V3 + 6);
      v.setUint32(F.DI_SIZE_V3 + 10 + namelen, 0x00ff_ffff);
    }), /references non-existent inode 16777215/],
  [
    "name with a slash",
    (i) =>
      i.inode(i.findInode(isSfDir), (v) => v.setUint8(F.DI_SIZE_V3 + 9, 0x2f)),
    /has NUL or a slash/,
  ],
  [
    "inode in no directory",
    (i) => {
      const at = i.find(F.XFS_DIR3_BLOCK_MAGIC);
      i.block(0, at, (v) => {
        const [first, second] = entries(v);
        putU64(v, first!, getU64(v, second!));
      });
    },
    /disconnected inode \d+/,
  ],
  ["directory block owner", (i) => {
    const at = i.find(F.XFS_DIR3_BLOCK_MAGIC);
    i.block(0, at, (v) => putU64(v, F.DIR3_OWNER, 5));
  }, /expected owner \d+, got 5/],
  ["bestfree", (i) => {
    const at = i.find(F.XFS_DIR3_BLOCK_MAGIC);
    i.block(0, at, (v) => add16(v, F.DIR3_BESTFREE + 2, 8));
  }, /bad bestfree table/],
  ["tag of an entry", (i) => {
    const at = i.find(F.XFS_DIR3_DATA_MAGIC);
    i.block(0, at, (v) => v.setUint16(0x4e, 9));
  }, /bad entry at block \d+ offset 64/],
  [".. of a directory in blocks", (i) => {
    const at = i.find(F.XFS_DIR3_BLOCK_MAGIC);
    i.block(0, at, (v) => putU64(v, 0x50, getU64(v, 0x50) + 1));
  }, /bad .. entry in directory inode/],
  [". of a directory in blocks", (i) => {
    const at = i.find(F.XFS_DIR3_BLOCK_MAGIC);
    i.block(0, at, (v) => putU64(v, 0x40, 1));
  }, /\. entry points to 1/],
  ["stale count of a block", (i) => {
    const at = i.find(F.XFS_DIR3_BLOCK_MAGIC);
    i.block(0, at, (v) => add32(v, i.sb.dirblksize - 4, 1));
  }, /stale \d+ in block 0, counted/],
  [
    "hash of a leaf entry",
    (i) => {
      const at = i.find(
        F.XFS_DIR3_LEAFN_MAGIC,
        (v) => v.getUint32(F.DA3_HDR_SIZE + 4) !== 0,
      );
      i.block(0, at, (v) => add32(v, F.DA3_HDR_SIZE, -1));
    },
    /bad hash table \(no leaf entry\)/,
  ],
  ["address of a leaf entry", (i) => {
    const at = i.find(
      F.XFS_DIR3_LEAFN_MAGIC,
      (v) => v.getUint32(F.DA3_HDR_SIZE + 4) !== 0,
    );
    i.block(0, at, (v) => add32(v, F.DA3_HDR_SIZE + 4, 1));
  }, /bad hash table \(no data entry\)/],
  ["hash of a node entry", (i) => {
    const at = i.find(F.XFS_DA3_NODE_MAGIC);
    i.block(0, at, (v) => add32(v, F.DA3_HDR_SIZE, 1));
  }, /bad hash value/],
  ["leaf sibling", (i) => {
    const at = i.find(
      F.XFS_DIR3_LEAFN_MAGIC,
      (v) => v.getUint32(F.DA3_FORW) !== 0,
    );
    i.block(0, at, (v) => v.setUint32(F.DA3_FORW, 0));
  }, /bad sibling pointers/],
  ["leaf1 bests", (i) => {
    const at = i.find(F.XFS_DIR3_LEAF1_MAGIC);
    i.block(0, at, (v) => add16(v, i.sb.dirblksize - 6, 8));
  }, /bad best \d+ of block/],
  ["leaf1 tail", (i) => {
    const at = i.find(F.XFS_DIR3_LEAF1_MAGIC);
    i.block(0, at, (v) => v.setUint32(i.sb.dirblksize - 4, 4000));
  }, /leaf block \d+ bad tail/],
  ["free index", (i) => {
    const at = i.find(F.XFS_DIR3_FREE_MAGIC);
    i.block(0, at, (v) => add32(v, F.DIR3_FREE_NUSED, 1));
  }, /free block \d+ bad nused/],
  ["free index best", (i) => {
    const at = i.find(F.XFS_DIR3_FREE_MAGIC);
    i.block(0, at, (v) => add16(v, F.DIR3_FREE_HDR_SIZE, 8));
  }, /free block \d+ bad best/],
  ["size of a directory", (i) => {
    const ino = i.findInode((v) =>
      kind(v) === S_IFDIR && format(v) === F.XFS_DINODE_FMT_EXTENTS
    );
    i.inode(ino, (v) => add64(v, F.DI_SIZE, i.sb.blocksize));
  }, /size \d+, its data ends at \d+/],
  // ---- attributes and links ----
  ["attr usedbytes", (i) => {
    const at = i.find(F.XFS_ATTR3_LEAF_MAGIC);
    i.block(0, at, (v) => add16(v, F.ATTR3_USEDBYTES, -4));
  }, /usedbytes \d+, counted \d+/],
  ["attr hash order", (i) => {
    const at = i.find(
      F.XFS_ATTR3_LEAF_MAGIC,
      (v) => v.getUint16(F.DA3_COUNT) > 2,
    );
    i.block(0, at, (v) => v.setUint32(F.ATTR3_HDR_SIZE + 8, 0));
  }, /out of order|bad hash/],
  ["attr name out of the block", (i) => {
    const at = i.find(F.XFS_ATTR3_LEAF_MAGIC);
    i.block(0, at, (v) => v.setUint16(F.ATTR3_HDR_SIZE + 4, 1023));
  }, /bad nameidx 1023|bad name/],
  ["attr freemap", (i) => {
    const at = i.find(F.XFS_ATTR3_LEAF_MAGIC);
    i.block(0, at, (v) => v.setUint16(F.ATTR3_FREEMAP + 2, 900));
  }, /freemap 0/],
  ["attr firstused", (i) => {
    const at = i.find(F.XFS_ATTR3_LEAF_MAGIC);
    i.block(0, at, (v) => v.setUint16(F.ATTR3_FIRSTUSED, 1020));
  }, /firstused 1020/],
  ["shortform attr totsize", (i) => {
    const ino = i.findInode((v) =>
      v.getUint8(F.DI_AFORMAT) === F.XFS_DINODE_FMT_LOCAL &&
      v.getUint8(F.DI_FORKOFF) > 0
    );
    i.inode(ino, (v) => {
      const at = F.DI_SIZE_V3 + 8 * v.getUint8(F.DI_FORKOFF);
      add16(v, at, 2);
    });
  }, /totsize \d+, counted \d+/],
  ["remote value", (i) => {
    const at = i.find(F.XFS_ATTR3_RMT_MAGIC);
    i.block(0, at, (v) => add32(v, F.RMT_BYTES, -1));
  }, /bad remote value/],
  ["symlink header", (i) => {
    const at = i.find(F.XFS_SYMLINK_MAGIC);
    i.block(0, at, (v) => v.setUint32(F.RMT_OFFSET, 4));
  }, /bad symlink header|bad CRC/],
  ["symlink size", (i) =>
    i.inode(
      i.findInode((v) => kind(v) === S_IFLNK),
      (v) => putU64(v, F.DI_SIZE, 2000),
    ), /bad size 2000 of symlink/],
];

Deno.test("fsckXfs() is silent on an image that the kernel has filled", () => {
  const report = fsckXfs(CLEAN);

  assertEquals(report, { findings: [], more: 0, judged: true, inodes: 166 });
});

Deno.test("fsckXfs() finds each mistake that is planted", async (t) => {
  const image = CLEAN.fork();
  for (const [name, plant, expect] of MISTAKES) {
    await t.step(name, () => {
      image.restore(CLEAN);
      plant(image);
      const { findings } = fsckXfs(image);
      assert(findings.length > 0, "nothing was found");
      assert(
        findings.some((line) => expect.test(line)),
        `${expect} is not in:\n${findings.slice(0, 8).join("\n")}`,
      );
    });
  }
});

Deno.test("fsckXfs() cannot judge what is no XFS", () => {
  const reader = { size: 1 << 20, read: () => 0 };
  const report = fsckXfs(reader);

  assertEquals(report.judged, false);
  assertMatch(
    report.findings[0]!,
    /magic 0x[0-9a-f]{8} is not that of an XFS super block/,
  );
});

Deno.test("fsckXfs() names a block that cannot be read", () => {
  const bad = CLEAN.sb.agHeaderDaddr(1, 1) * 512;
  const { findings } = fsckXfs({
    size: CLEAN.size,
    read: (at, data) => at === bad ? -5 : CLEAN.read(at, data),
  });

  assertEquals(findings[0], "agf 1: cannot be read, error 5");
});

Deno.test("assertCleanImage() reads a device, also a large one", async () => {
  const device = createNvme(new VirtualClock(), {
    preset: "null",
    media: new MemoryMedia(2 ** 40),
  });
  await mkfsXfs(device, { rmapbt: true });

  assertCleanImage(device);
  device.close();
});

// Goal: whatever the image says, the check ends and throws nothing. Method: bytes of
// metadata are changed at random, checksums mended in half of the cases. Oracle: it
// returns; and says something, if a checksum was left wrong.
Deno.test("fsckXfs() survives any image", () => {
  const random = new Prng(1, "fsck fuzz");
  const metadata: number[] = [];
  for (let agbno = 0; agbno < CLEAN.sb.agSize(0); agbno++) {
    const view = CLEAN.viewBlock(0, agbno);
    if (view.getUint32(0) !== 0 || view.getUint32(8) !== 0) {
      metadata.push(agbno);
    }
  }
  const image = CLEAN.fork();
  for (let round = 0; round < 150; round++) {
    image.restore(CLEAN);
    for (let n = 1 + random.below(20); n > 0; n--) {
      const agbno = metadata[random.below(metadata.length)]!;
      const change = (view: DataView) => {
        const at = random.below(view.byteLength);
        view.setUint8(at, random.below(3) === 0 ? 0xff : random.below(256));
      };
      if (random.below(2) === 0) image.block(0, agbno, change);
      else change(image.viewBlock(0, agbno));
    }
    fsckXfs(image);
  }
});
