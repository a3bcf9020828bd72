/**
 * Numbers of the NVMe protocol: registers, opcodes, fields, statuses.
 *
 * Kernel counterpart: include/linux/nvme.h.
 *
 * @module
 */

/** 32-bit words of a submission queue entry, 64 bytes. */
export const SQE_WORDS = 16;
/** 32-bit words of a completion queue entry, 16 bytes. */
export const CQE_WORDS = 4;

/*
 * Words of a submission entry: 0 opcode, fused pair from bit 8, command identifier
 * from bit 16; 1 namespace; 6-9 data pointer; 10-15 the command's own, of I/O
 * commands 10-11 first block, 12 blocks less one and flags.
 * Words of a completion entry: 0-1 result; 2 submission queue head, and queue
 * number from bit 16; 3 command identifier, phase in bit 16, status from bit 17.
 */

// Registers, by byte offset.
/** Capabilities, lower half. */
export const NVME_REG_CAP = 0x00;
/** Capabilities, upper half. */
export const NVME_REG_CAP_HI = 0x04;
/** Version. */
export const NVME_REG_VS = 0x08;
/** Masks interrupt vectors, a bit each. */
export const NVME_REG_INTMS = 0x0c;
/** Unmasks interrupt vectors. */
export const NVME_REG_INTMC = 0x10;
/** Controller configuration. */
export const NVME_REG_CC = 0x14;
/** Controller status. */
export const NVME_REG_CSTS = 0x1c;
/** Admin queue attributes: sizes less one. */
export const NVME_REG_AQA = 0x24;
/** The first doorbell: submission queue 0. */
export const NVME_REG_DBS = 0x1000;

/** Enable (in CC). */
export const NVME_CC_ENABLE = 1 << 0;
/** All I/O command sets of the controller, not the NVM command set alone (in CC). */
export const NVME_CC_CSS_CSI: number = 6 << 4;
/** Where the arbitration mechanism lies in CC, 3 bits. */
export const NVME_CC_AMS_SHIFT = 11;
/** Round robin (in CC). */
export const NVME_CC_AMS_RR = 0;
/** Weighted round robin with urgent priority class (in CC). */
export const NVME_CC_AMS_WRRU: number = 1 << NVME_CC_AMS_SHIFT;
/** Normal shutdown notification (in CC). */
export const NVME_CC_SHN_NORMAL: number = 1 << 14;
/** Abrupt shutdown notification (in CC). */
export const NVME_CC_SHN_ABRUPT: number = 2 << 14;
/** Both bits of the shutdown notification (in CC). */
export const NVME_CC_SHN_MASK: number = 3 << 14;
/** Submission entries of 2^6 bytes (in CC). */
export const NVME_CC_IOSQES: number = 6 << 16;
/** Completion entries of 2^4 bytes (in CC). */
export const NVME_CC_IOCQES: number = 4 << 20;

/** Ready for commands (in CSTS). */
export const NVME_CSTS_RDY = 1 << 0;
/** The controller has failed and must be reset (in CSTS). */
export const NVME_CSTS_CFS = 1 << 1;
/** The shutdown is complete (in CSTS). */
export const NVME_CSTS_SHST_CMPLT: number = 2 << 2;
/** Both bits of the shutdown's state (in CSTS). */
export const NVME_CSTS_SHST_MASK: number = 3 << 2;

// I/O commands.
/** Make the cache durable. */
export const NVME_CMD_FLUSH = 0x00;
/** Write. */
export const NVME_CMD_WRITE = 0x01;
/** Read. */
export const NVME_CMD_READ = 0x02;
/** Make blocks unreadable until they are written. */
export const NVME_CMD_WRITE_UNCOR = 0x04;
/** Compare with the host's memory. */
export const NVME_CMD_COMPARE = 0x05;
/** Write zeroes without a payload. */
export const NVME_CMD_WRITE_ZEROES = 0x08;
/** Dataset management: deallocate ranges. */
export const NVME_CMD_DSM = 0x09;
/** Read without a transfer. */
export const NVME_CMD_VERIFY = 0x0c;
/** Copy ranges within the namespace. */
export const NVME_CMD_COPY = 0x19;
/** Zone management send. */
export const NVME_CMD_ZONE_MGMT_SEND = 0x79;
/** Zone management receive: report. */
export const NVME_CMD_ZONE_MGMT_RECV = 0x7a;
/** Write at a zone's write pointer. */
export const NVME_CMD_ZONE_APPEND = 0x7d;

// Admin commands.
/** Delete an I/O submission queue. */
export const NVME_ADMIN_DELETE_SQ = 0x00;
/** Create an I/O submission queue. */
export const NVME_ADMIN_CREATE_SQ = 0x01;
/** Get a log page. */
export const NVME_ADMIN_GET_LOG_PAGE = 0x02;
/** Delete an I/O completion queue. */
export const NVME_ADMIN_DELETE_CQ = 0x04;
/** Create an I/O completion queue. */
export const NVME_ADMIN_CREATE_CQ = 0x05;
/** Tell about the controller or a namespace. */
export const NVME_ADMIN_IDENTIFY = 0x06;
/** Abort a command. */
export const NVME_ADMIN_ABORT_CMD = 0x08;
/** Set a feature. */
export const NVME_ADMIN_SET_FEATURES = 0x09;
/** Get a feature. */
export const NVME_ADMIN_GET_FEATURES = 0x0a;
/** Ends when there is an event to tell. */
export const NVME_ADMIN_ASYNC_EVENT = 0x0c;
/** Format the namespace. */
export const NVME_ADMIN_FORMAT_NVM = 0x80;

/** First half of a fused pair, in word 0. */
export const NVME_CMD_FUSE_FIRST: number = 1 << 8;
/** Second half of a fused pair, in word 0. */
export const NVME_CMD_FUSE_SECOND: number = 2 << 8;

/** Force unit access, in word 12. */
export const NVME_RW_FUA: number = 1 << 30;
/**
 * Limited retry, in word 12. The media here has no retries of its own to
 * limit: the bit is taken and changes nothing.
 */
export const NVME_RW_LR: number = 1 << 31;
/** The read is speculative: a hint, in word 13. */
export const NVME_RW_DSM_FREQ_PREFETCH = 7;
/** Write Zeroes: blocks may be deallocated, in word 12. */
export const NVME_WZ_DEAC: number = 1 << 25;
/** Dataset management: deallocate, in word 11. */
export const NVME_DSMGMT_AD: number = 1 << 2;
/** Bytes of one range of a dataset management command. */
export const NVME_DSM_RANGE_SIZE = 16;
/** Bytes of one source range of a copy. */
export const NVME_COPY_RANGE_SIZE = 32;
/** Zone management send: close, in word 13. */
export const NVME_ZONE_CLOSE = 1;
/** Zone management send: finish. */
export const NVME_ZONE_FINISH = 2;
/** Zone management send: open. */
export const NVME_ZONE_OPEN = 3;
/** Zone management send: reset. */
export const NVME_ZONE_RESET = 4;
/** Zone management send: take a read-only zone offline. */
export const NVME_ZONE_OFFLINE = 5;
/** Zone management send: all zones, in word 13. */
export const NVME_ZONE_SELECT_ALL: number = 1 << 8;

/** Physically contiguous, in word 11 of a queue's creation. */
export const NVME_QUEUE_PHYS_CONTIG = 1 << 0;
/** A completion queue with interrupts, in word 11 of its creation. */
export const NVME_CQ_IRQ_ENABLED = 1 << 1;

/** Identify: the namespace. */
export const NVME_ID_CNS_NS = 0x00;
/** Identify: the controller. */
export const NVME_ID_CNS_CTRL = 0x01;
/** Identify: numbers of the active namespaces. */
export const NVME_ID_CNS_NS_ACTIVE_LIST = 0x02;
/** Identify: names of the namespace. */
export const NVME_ID_CNS_NS_DESC_LIST = 0x03;
/** Identify: the namespace, of a command set. */
export const NVME_ID_CNS_CS_NS = 0x05;
/** Identify: the controller, of a command set. */
export const NVME_ID_CNS_CS_CTRL = 0x06;
/** The NVM command set. */
export const NVME_CSI_NVM = 0;
/** The zoned command set. */
export const NVME_CSI_ZNS = 2;

/** Feature: arbitration. */
export const NVME_FEAT_ARBITRATION = 0x01;
/** Feature: error recovery; bit 16 fails reads of deallocated blocks (DULBE). */
export const NVME_FEAT_ERR_RECOVERY = 0x05;
/** Feature: the volatile write cache is in use. */
export const NVME_FEAT_VOLATILE_WC = 0x06;
/** Feature: number of queues. */
export const NVME_FEAT_NUM_QUEUES = 0x07;
/** Feature: interrupt coalescing. */
export const NVME_FEAT_IRQ_COALESCE = 0x08;
/** Feature: configuration of an interrupt vector. */
export const NVME_FEAT_IRQ_CONFIG = 0x09;
/** Feature: write atomicity; bit 0 needs no more than the power-fail unit (DN). */
export const NVME_FEAT_WRITE_ATOMIC = 0x0a;
/** Feature: which events are told. */
export const NVME_FEAT_ASYNC_EVENT = 0x0b;
/** Feature: the namespace is write protected. */
export const NVME_FEAT_WRITE_PROTECT = 0x84;

/** Log page: errors. */
export const NVME_LOG_ERROR = 0x01;
/** Log page: health. */
export const NVME_LOG_SMART = 0x02;
/** Log page: firmware slots. */
export const NVME_LOG_FW_SLOT = 0x03;
/** Log page: namespaces that have changed. */
export const NVME_LOG_CHANGED_NS = 0x04;
/** Log page: commands that there are, and their effects. */
export const NVME_LOG_CMD_EFFECTS = 0x05;

/** The one namespace of a controller here. */
export const NVME_NSID = 1;
/** Every namespace, where a command allows it. */
export const NVME_NSID_ALL = 0xffff_ffff;

// Statuses: type from bit 8, code below.
/** Success. */
export const NVME_SC_SUCCESS = 0x000;
/** The opcode is not known. */
export const NVME_SC_INVALID_OPCODE = 0x001;
/** A field has a value that cannot be. */
export const NVME_SC_INVALID_FIELD = 0x002;
/** The command identifier is that of a command under way. */
export const NVME_SC_CMDID_CONFLICT = 0x003;
/** The host's memory could not be read or written. */
export const NVME_SC_DATA_XFER_ERROR = 0x004;
/** Something within the device has failed. */
export const NVME_SC_INTERNAL = 0x006;
/** An Abort command has ended it. */
export const NVME_SC_ABORT_REQ = 0x007;
/** Its submission queue has been deleted. */
export const NVME_SC_ABORT_QUEUE = 0x008;
/** The other half of the fused pair has failed. */
export const NVME_SC_FUSED_FAIL = 0x009;
/** The other half of the fused pair is not there. */
export const NVME_SC_FUSED_MISSING = 0x00a;
/** The namespace does not exist. */
export const NVME_SC_INVALID_NS = 0x00b;
/** The command cannot come now. */
export const NVME_SC_CMD_SEQ_ERROR = 0x00c;
/** A fused compare-and-write is larger than its atomic unit. */
export const NVME_SC_ATOMIC_UNIT_EXCEEDED = 0x014;
/** The namespace is write protected. */
export const NVME_SC_NS_WRITE_PROTECTED = 0x020;
/** It was interrupted, and may be sent again. */
export const NVME_SC_CMD_INTERRUPTED = 0x021;
/** Beyond the end of the namespace. */
export const NVME_SC_LBA_RANGE = 0x080;
/** No room. */
export const NVME_SC_CAP_EXCEEDED = 0x081;
/** The namespace is not ready. */
export const NVME_SC_NS_NOT_READY = 0x082;
/** Reserved for somebody else. */
export const NVME_SC_RESERVATION_CONFLICT = 0x083;
/** The completion queue does not exist. */
export const NVME_SC_CQ_INVALID = 0x100;
/** The queue's number cannot be, or is taken. */
export const NVME_SC_QID_INVALID = 0x101;
/** The queue's size cannot be. */
export const NVME_SC_QUEUE_SIZE = 0x102;
/** Too many Abort commands. */
export const NVME_SC_ABORT_LIMIT = 0x103;
/** Too many Asynchronous Event Request commands. */
export const NVME_SC_ASYNC_LIMIT = 0x105;
/** The interrupt vector does not exist. */
export const NVME_SC_INVALID_VECTOR = 0x108;
/** The log page does not exist. */
export const NVME_SC_INVALID_LOG_PAGE = 0x109;
/** The format does not exist. */
export const NVME_SC_INVALID_FORMAT = 0x10a;
/** The completion queue still has submission queues. */
export const NVME_SC_INVALID_QUEUE = 0x10c;
/** The feature cannot be saved. */
export const NVME_SC_FEATURE_NOT_SAVEABLE = 0x10d;
/** The feature cannot be changed. */
export const NVME_SC_FEATURE_NOT_CHANGEABLE = 0x10e;
/** Attributes contradict each other. */
export const NVME_SC_BAD_ATTRIBUTES = 0x180;
/** Protection information is not valid. */
export const NVME_SC_INVALID_PI = 0x181;
/** Write to a range that is read-only. */
export const NVME_SC_READ_ONLY = 0x182;
/** Larger than a limit of this command. */
export const NVME_SC_CMD_SIZE_LIM_EXCEEDED = 0x183;
/** Past a zone's end or capacity. */
export const NVME_SC_ZONE_BOUNDARY_ERROR = 0x1b8;
/** The zone is full. */
export const NVME_SC_ZONE_FULL = 0x1b9;
/** The zone is read-only. */
export const NVME_SC_ZONE_READ_ONLY = 0x1ba;
/** The zone is offline. */
export const NVME_SC_ZONE_OFFLINE = 0x1bb;
/** Not at the zone's write pointer. */
export const NVME_SC_ZONE_INVALID_WRITE = 0x1bc;
/** Too many active zones. */
export const NVME_SC_ZONE_TOO_MANY_ACTIVE = 0x1bd;
/** Too many open zones. */
export const NVME_SC_ZONE_TOO_MANY_OPEN = 0x1be;
/** The zone cannot go from its state to the one asked for. */
export const NVME_SC_ZONE_INVALID_TRANSITION = 0x1bf;
/** The media could not be written. */
export const NVME_SC_WRITE_FAULT = 0x280;
/** The media could not be read. */
export const NVME_SC_READ_ERROR = 0x281;
/** The guard does not match. */
export const NVME_SC_GUARD_CHECK = 0x282;
/** The application tag does not match. */
export const NVME_SC_APPTAG_CHECK = 0x283;
/** The reference tag does not match. */
export const NVME_SC_REFTAG_CHECK = 0x284;
/** The data differ. */
export const NVME_SC_COMPARE_FAILED = 0x285;
/** Access is denied. */
export const NVME_SC_ACCESS_DENIED = 0x286;
/** A block that was deallocated or never written, where that is an error. */
export const NVME_SC_UNWRITTEN_BLOCK = 0x287;
/** The host's path to the device has failed. */
export const NVME_SC_HOST_PATH_ERROR = 0x370;
/** The host has given it up. */
export const NVME_SC_HOST_ABORTED_CMD = 0x371;
/** Which of CRDT1 to CRDT3 delays a retry, 0 for none. */
export const NVME_STATUS_CRD = 0x1800;
/** The error log has more about it. */
export const NVME_STATUS_MORE = 0x2000;
/** Do not retry: the command would fail again. */
export const NVME_STATUS_DNR = 0x4000;
