/**
 * Where every field of the version 5 format lies: magic numbers, offsets in bytes,
 * bits and limits. All integers on disk are big-endian, but for checksums.
 *
 * Kernel counterpart: fs/xfs/libxfs/xfs_format.h, xfs_da_format.h.
 *
 * @module
 */

/** Bytes of a basic block, the unit of a `daddr` (kernel: `BBSIZE`). */
export const BBSIZE = 512;
/** No block of a group (kernel: `NULLAGBLOCK`). */
export const NULLAGBLOCK = 0xffff_ffff;
/** No inode of a group (kernel: `NULLAGINO`). */
export const NULLAGINO = 0xffff_ffff;
/** No block of the file system; 2^64 - 1 on disk (kernel: `NULLFSBLOCK`). */
export const NULLFSBLOCK: number = -1;
/** No inode; 2^64 - 1 on disk (kernel: `NULLFSINO`). */
export const NULLFSINO: number = -1;

// ---- super block (kernel: struct xfs_dsb) ----
export const XFS_SB_MAGIC = 0x5846_5342;
export const SB_MAGICNUM = 0;
export const SB_BLOCKSIZE = 4;
export const SB_DBLOCKS = 8;
export const SB_RBLOCKS = 16;
export const SB_REXTENTS = 24;
export const SB_UUID = 32;
export const SB_LOGSTART = 48;
export const SB_ROOTINO = 56;
export const SB_RBMINO = 64;
export const SB_RSUMINO = 72;
export const SB_REXTSIZE = 80;
export const SB_AGBLOCKS = 84;
export const SB_AGCOUNT = 88;
export const SB_RBMBLOCKS = 92;
export const SB_LOGBLOCKS = 96;
export const SB_VERSIONNUM = 100;
export const SB_SECTSIZE = 102;
export const SB_INODESIZE = 104;
export const SB_INOPBLOCK = 106;
export const SB_FNAME = 108;
export const SB_BLOCKLOG = 120;
export const SB_SECTLOG = 121;
export const SB_INODELOG = 122;
export const SB_INOPBLOG = 123;
export const SB_AGBLKLOG = 124;
export const SB_REXTSLOG = 125;
export const SB_INPROGRESS = 126;
export const SB_IMAX_PCT = 127;
export const SB_ICOUNT = 128;
export const SB_IFREE = 136;
export const SB_FDBLOCKS = 144;
export const SB_FREXTENTS = 152;
export const SB_UQUOTINO = 160;
export const SB_GQUOTINO = 168;
export const SB_QFLAGS = 176;
export const SB_FLAGS = 178;
export const SB_SHARED_VN = 179;
export const SB_INOALIGNMT = 180;
export const SB_UNIT = 184;
export const SB_WIDTH = 188;
export const SB_DIRBLKLOG = 192;
export const SB_LOGSECTLOG = 193;
export const SB_LOGSECTSIZE = 194;
export const SB_LOGSUNIT = 196;
export const SB_FEATURES2 = 200;
export const SB_BAD_FEATURES2 = 204;
export const SB_FEATURES_COMPAT = 208;
export const SB_FEATURES_RO_COMPAT = 212;
export const SB_FEATURES_INCOMPAT = 216;
export const SB_FEATURES_LOG_INCOMPAT = 220;
export const SB_CRC = 224;
export const SB_SPINO_ALIGN = 228;
export const SB_PQUOTINO = 232;
export const SB_LSN = 240;
export const SB_META_UUID = 248;
/** First byte after what is defined; zero from here to the end of the sector. */
export const SB_END = 264;

export const XFS_SB_VERSION_5 = 5;
export const XFS_SB_VERSION_ATTRBIT = 0x0010;
export const XFS_SB_VERSION_NLINKBIT = 0x0020;
export const XFS_SB_VERSION_QUOTABIT = 0x0040;
export const XFS_SB_VERSION_ALIGNBIT = 0x0080;
export const XFS_SB_VERSION_DALIGNBIT = 0x0100;
export const XFS_SB_VERSION_LOGV2BIT = 0x0400;
export const XFS_SB_VERSION_SECTORBIT = 0x0800;
export const XFS_SB_VERSION_EXTFLGBIT = 0x1000;
export const XFS_SB_VERSION_DIRV2BIT = 0x2000;
export const XFS_SB_VERSION_BORGBIT = 0x4000;
export const XFS_SB_VERSION_MOREBITSBIT = 0x8000;
export const XFS_SB_VERSION2_LAZYSBCOUNTBIT = 0x02;
export const XFS_SB_VERSION2_ATTR2BIT = 0x08;
export const XFS_SB_VERSION2_PROJID32BIT = 0x80;
export const XFS_SB_VERSION2_CRCBIT = 0x100;

export const XFS_SB_FEAT_RO_COMPAT_FINOBT = 1 << 0;
export const XFS_SB_FEAT_RO_COMPAT_RMAPBT = 1 << 1;
export const XFS_SB_FEAT_RO_COMPAT_REFLINK = 1 << 2;
export const XFS_SB_FEAT_RO_COMPAT_INOBTCNT = 1 << 3;
export const XFS_SB_FEAT_RO_COMPAT_ALL = 0xf;
export const XFS_SB_FEAT_INCOMPAT_FTYPE = 1 << 0;
export const XFS_SB_FEAT_INCOMPAT_SPINODES = 1 << 1;
export const XFS_SB_FEAT_INCOMPAT_META_UUID = 1 << 2;
export const XFS_SB_FEAT_INCOMPAT_BIGTIME = 1 << 3;
export const XFS_SB_FEAT_INCOMPAT_NEEDSREPAIR = 1 << 4;
export const XFS_SB_FEAT_INCOMPAT_NREXT64 = 1 << 5;
/** What is understood; NEEDSREPAIR is, too, and refuses the mount. */
export const XFS_SB_FEAT_INCOMPAT_ALL = 0x3f;

// ---- AGF (kernel: struct xfs_agf) ----
export const XFS_AGF_MAGIC = 0x5841_4746;
export const XFS_AGF_VERSION = 1;
export const AGF_MAGICNUM = 0;
export const AGF_VERSIONNUM = 4;
export const AGF_SEQNO = 8;
export const AGF_LENGTH = 12;
export const AGF_BNOROOT = 16;
export const AGF_CNTROOT = 20;
export const AGF_RMAPROOT = 24;
export const AGF_BNOLEVEL = 28;
export const AGF_CNTLEVEL = 32;
export const AGF_RMAPLEVEL = 36;
export const AGF_FLFIRST = 40;
export const AGF_FLLAST = 44;
export const AGF_FLCOUNT = 48;
export const AGF_FREEBLKS = 52;
export const AGF_LONGEST = 56;
export const AGF_BTREEBLKS = 60;
export const AGF_UUID = 64;
export const AGF_RMAPBLOCKS = 80;
export const AGF_REFCNTBLOCKS = 84;
export const AGF_REFCNTROOT = 88;
export const AGF_REFCNTLEVEL = 92;
export const AGF_LSN = 208;
export const AGF_CRC = 216;
export const AGF_END = 224;

// ---- AGI (kernel: struct xfs_agi) ----
export const XFS_AGI_MAGIC = 0x5841_4749;
export const XFS_AGI_VERSION = 1;
export const AGI_MAGICNUM = 0;
export const AGI_VERSIONNUM = 4;
export const AGI_SEQNO = 8;
export const AGI_LENGTH = 12;
export const AGI_COUNT = 16;
export const AGI_ROOT = 20;
export const AGI_LEVEL = 24;
export const AGI_FREECOUNT = 28;
export const AGI_NEWINO = 32;
export const AGI_DIRINO = 36;
export const AGI_UNLINKED = 40;
export const XFS_AGI_UNLINKED_BUCKETS = 64;
export const AGI_UUID = 296;
export const AGI_CRC = 312;
export const AGI_LSN = 320;
export const AGI_FREE_ROOT = 328;
export const AGI_FREE_LEVEL = 332;
export const AGI_IBLOCKS = 336;
export const AGI_FBLOCKS = 340;
export const AGI_END = 344;

// ---- AGFL (kernel: struct xfs_agfl) ----
export const XFS_AGFL_MAGIC = 0x5841_464c;
export const AGFL_MAGICNUM = 0;
export const AGFL_SEQNO = 4;
export const AGFL_UUID = 8;
export const AGFL_LSN = 24;
export const AGFL_CRC = 32;
/** First entry; each is a block of the group. */
export const AGFL_BNO = 36;

// ---- B+tree blocks (kernel: struct xfs_btree_block) ----
export const XFS_ABTB_CRC_MAGIC = 0x4142_3342;
export const XFS_ABTC_CRC_MAGIC = 0x4142_3343;
export const XFS_IBT_CRC_MAGIC = 0x4941_4233;
export const XFS_FIBT_CRC_MAGIC = 0x4649_4233;
export const XFS_RMAP_CRC_MAGIC = 0x524d_4233;
export const XFS_REFC_CRC_MAGIC = 0x5233_4643;
export const XFS_BMAP_CRC_MAGIC = 0x424d_4133;
export const BB_MAGIC = 0;
export const BB_LEVEL = 4;
export const BB_NUMRECS = 6;
// Short form: pointers are blocks of the group, 4 bytes.
export const SBB_LEFTSIB = 8;
export const SBB_RIGHTSIB = 12;
export const SBB_BLKNO = 16;
export const SBB_LSN = 24;
export const SBB_UUID = 32;
export const SBB_OWNER = 48;
export const SBB_CRC = 52;
export const XFS_BTREE_SBLOCK_CRC_LEN = 56;
// Long form: pointers are blocks of the file system, 8 bytes.
export const LBB_LEFTSIB = 8;
export const LBB_RIGHTSIB = 16;
export const LBB_BLKNO = 24;
export const LBB_LSN = 32;
export const LBB_UUID = 40;
export const LBB_OWNER = 56;
export const LBB_CRC = 64;
export const XFS_BTREE_LBLOCK_CRC_LEN = 72;
/** Most levels of a tree (kernel: `XFS_BTREE_MAXLEVELS`). */
export const XFS_BTREE_MAXLEVELS = 9;

// ---- inodes (kernel: struct xfs_dinode) ----
export const XFS_DINODE_MAGIC = 0x494e;
export const DI_MAGIC = 0;
export const DI_MODE = 2;
export const DI_VERSION = 4;
export const DI_FORMAT = 5;
export const DI_METATYPE = 6;
export const DI_UID = 8;
export const DI_GID = 12;
export const DI_NLINK = 16;
export const DI_PROJID_LO = 20;
export const DI_PROJID_HI = 22;
export const DI_BIG_NEXTENTS = 24;
export const DI_ATIME = 32;
export const DI_MTIME = 40;
export const DI_CTIME = 48;
export const DI_SIZE = 56;
export const DI_NBLOCKS = 64;
export const DI_EXTSIZE = 72;
/** Data extents; with NREXT64 attribute extents. */
export const DI_NEXTENTS = 76;
export const DI_ANEXTENTS = 80;
export const DI_FORKOFF = 82;
export const DI_AFORMAT = 83;
export const DI_FLAGS = 90;
export const DI_GEN = 92;
export const DI_NEXT_UNLINKED = 96;
export const DI_CRC = 100;
export const DI_CHANGECOUNT = 104;
export const DI_LSN = 112;
export const DI_FLAGS2 = 120;
export const DI_COWEXTSIZE = 128;
export const DI_CRTIME = 144;
export const DI_INO = 152;
export const DI_UUID = 160;
/** Bytes before the forks. */
export const DI_SIZE_V3 = 176;

// Forks of an inode, where a function works on any of them.
export const XFS_DATA_FORK = 0;
export const XFS_ATTR_FORK = 1;
export const XFS_COW_FORK = 2;

// Formats of a fork (kernel: enum xfs_dinode_fmt).
export const XFS_DINODE_FMT_DEV = 0;
export const XFS_DINODE_FMT_LOCAL = 1;
export const XFS_DINODE_FMT_EXTENTS = 2;
export const XFS_DINODE_FMT_BTREE = 3;

export const XFS_DIFLAG_REALTIME = 1 << 0;
export const XFS_DIFLAG_PREALLOC = 1 << 1;
export const XFS_DIFLAG_NEWRTBM = 1 << 2;
export const XFS_DIFLAG_IMMUTABLE = 1 << 3;
export const XFS_DIFLAG_APPEND = 1 << 4;
export const XFS_DIFLAG_SYNC = 1 << 5;
export const XFS_DIFLAG_NOATIME = 1 << 6;
export const XFS_DIFLAG_NODUMP = 1 << 7;
export const XFS_DIFLAG_RTINHERIT = 1 << 8;
export const XFS_DIFLAG_PROJINHERIT = 1 << 9;
export const XFS_DIFLAG_NOSYMLINKS = 1 << 10;
export const XFS_DIFLAG_EXTSIZE = 1 << 11;
export const XFS_DIFLAG_EXTSZINHERIT = 1 << 12;
export const XFS_DIFLAG_NODEFRAG = 1 << 13;
export const XFS_DIFLAG_FILESTREAM = 1 << 14;
export const XFS_DIFLAG2_DAX = 1 << 0;
export const XFS_DIFLAG2_REFLINK = 1 << 1;
export const XFS_DIFLAG2_COWEXTSIZE = 1 << 2;
export const XFS_DIFLAG2_BIGTIME = 1 << 3;
export const XFS_DIFLAG2_NREXT64 = 1 << 4;

/** Inodes that are allocated together (kernel: `XFS_INODES_PER_CHUNK`). */
export const XFS_INODES_PER_CHUNK = 64;
/** Inodes that a bit of a hole mask stands for. */
export const XFS_INODES_PER_HOLEMASK_BIT = 4;
/** Bytes of an inode cluster, for inodes of 256 bytes. */
export const XFS_INODE_BIG_CLUSTER_SIZE = 8192;

/** Seconds by which a BIGTIME count begins before 1970. */
export const XFS_BIGTIME_EPOCH_OFFSET: number = 2 ** 31;

/** Longest extent, blocks (kernel: `XFS_MAX_BMBT_EXTLEN`). */
export const XFS_MAX_BMBT_EXTLEN = 0x1f_ffff;

// ---- owners in the reverse map (kernel: XFS_RMAP_OWN_*): the numbers as signed ----
export const XFS_RMAP_OWN_NULL: number = -1;
export const XFS_RMAP_OWN_UNKNOWN: number = -2;
export const XFS_RMAP_OWN_FS: number = -3;
export const XFS_RMAP_OWN_LOG: number = -4;
export const XFS_RMAP_OWN_AG: number = -5;
export const XFS_RMAP_OWN_INOBT: number = -6;
export const XFS_RMAP_OWN_INODES: number = -7;
export const XFS_RMAP_OWN_REFC: number = -8;
export const XFS_RMAP_OWN_COW: number = -9;

// Flags of a reverse mapping, in memory.
export const XFS_RMAP_ATTR_FORK = 1 << 0;
export const XFS_RMAP_BMBT_BLOCK = 1 << 1;
export const XFS_RMAP_UNWRITTEN = 1 << 2;

/** Bit of a start block in the reference-count tree: staging for copy-on-write. */
export const XFS_REFC_COWFLAG: number = 2 ** 31;
/** Most references that are counted (kernel: `XFS_REFC_REFCOUNT_MAX`). */
export const XFS_REFC_REFCOUNT_MAX: number = 2 ** 32 - 1;

// ---- directories and attributes ----
export const XFS_DIR3_BLOCK_MAGIC = 0x5844_4233;
export const XFS_DIR3_DATA_MAGIC = 0x5844_4433;
export const XFS_DIR3_FREE_MAGIC = 0x5844_4633;
export const XFS_DIR3_LEAF1_MAGIC = 0x3df1;
export const XFS_DIR3_LEAFN_MAGIC = 0x3dff;
export const XFS_DA3_NODE_MAGIC = 0x3ebe;
export const XFS_ATTR3_LEAF_MAGIC = 0x3bee;
export const XFS_ATTR3_RMT_MAGIC = 0x5841_524d;
export const XFS_SYMLINK_MAGIC = 0x5853_4c4d;

// Header of data, block and free blocks (kernel: struct xfs_dir3_blk_hdr).
export const DIR3_MAGIC = 0;
export const DIR3_CRC = 4;
export const DIR3_BLKNO = 8;
export const DIR3_LSN = 16;
export const DIR3_UUID = 24;
export const DIR3_OWNER = 40;
export const DIR3_BESTFREE = 48;
export const DIR3_DATA_HDR_SIZE = 64;
export const DIR3_FREE_FIRSTDB = 48;
export const DIR3_FREE_NVALID = 52;
export const DIR3_FREE_NUSED = 56;
export const DIR3_FREE_HDR_SIZE = 64;

// Header of nodes and leaves (kernel: struct xfs_da3_blkinfo).
export const DA3_FORW = 0;
export const DA3_BACK = 4;
export const DA3_MAGIC = 8;
export const DA3_CRC = 12;
export const DA3_BLKNO = 16;
export const DA3_LSN = 24;
export const DA3_UUID = 32;
export const DA3_OWNER = 48;
export const DA3_COUNT = 56;
/** Of a node. */
export const DA3_LEVEL = 58;
/** Of a directory leaf. */
export const DIR3_LEAF_STALE = 58;
export const DA3_HDR_SIZE = 64;
/** Of an attribute leaf. */
export const ATTR3_USEDBYTES = 58;
export const ATTR3_FIRSTUSED = 60;
export const ATTR3_HOLES = 62;
export const ATTR3_FREEMAP = 64;
export const ATTR3_HDR_SIZE = 80;
/** Deepest tree of names (kernel: `XFS_DA_NODE_MAXDEPTH`). */
export const XFS_DA_NODE_MAXDEPTH = 5;

// Header of a remote value or target (kernel: struct xfs_attr3_rmt_hdr,
// struct xfs_dsymlink_hdr): the same layout.
export const RMT_MAGIC = 0;
export const RMT_OFFSET = 4;
export const RMT_BYTES = 8;
export const RMT_CRC = 12;
export const RMT_UUID = 16;
export const RMT_OWNER = 32;
export const RMT_BLKNO = 40;
export const RMT_LSN = 48;
export const RMT_HDR_SIZE = 56;

/** Bytes of the longest name, and one more (kernel: `MAXNAMELEN`). */
export const MAXNAMELEN = 256;
/** Bytes of the longest target of a symbolic link, and one more (kernel:
 * `XFS_SYMLINK_MAXLEN`). */
export const XFS_SYMLINK_MAXLEN = 1024;

/** Byte of a directory's data fork at which leaves begin. */
export const XFS_DIR2_LEAF_OFFSET: number = 2 ** 35;
/** Byte at which free-index blocks begin. */
export const XFS_DIR2_FREE_OFFSET: number = 2 ** 36;

// Type of a directory entry's inode.
export const XFS_DIR3_FT_UNKNOWN = 0;
export const XFS_DIR3_FT_REG_FILE = 1;
export const XFS_DIR3_FT_DIR = 2;
export const XFS_DIR3_FT_CHRDEV = 3;
export const XFS_DIR3_FT_BLKDEV = 4;
export const XFS_DIR3_FT_FIFO = 5;
export const XFS_DIR3_FT_SOCK = 6;
export const XFS_DIR3_FT_SYMLINK = 7;
export const XFS_DIR3_FT_WHT = 8;
/** First number that is no type. */
export const XFS_DIR3_FT_MAX = 9;

// Flags of an attribute.
export const XFS_ATTR_LOCAL = 1 << 0;
export const XFS_ATTR_ROOT = 1 << 1;
export const XFS_ATTR_SECURE = 1 << 2;
export const XFS_ATTR_PARENT = 1 << 3;
export const XFS_ATTR_INCOMPLETE = 1 << 7;
