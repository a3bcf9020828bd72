/**
 * Numbers of the NVMe protocol: opcodes, statuses, where a field lies.
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
 * Words of a submission entry: 0 opcode, and command identifier from bit 16;
 * 1 namespace; 6-7 data pointer; 10-11 first block; 12 blocks less one, flags.
 * Words of a completion entry: 0-1 result; 2 submission queue head, and queue
 * number from bit 16; 3 command identifier, phase in bit 16, status from bit 17.
 */

/** Make the cache durable. */
export const NVME_CMD_FLUSH = 0x00;
/** Write. */
export const NVME_CMD_WRITE = 0x01;
/** Read. */
export const NVME_CMD_READ = 0x02;
/** Write zeroes without a payload. */
export const NVME_CMD_WRITE_ZEROES = 0x08;
/** Tell about the controller or a namespace (admin queue). */
export const NVME_ADMIN_IDENTIFY = 0x06;

/** Force unit access, in word 12. */
export const NVME_RW_FUA: number = 1 << 30;

/** Identify: the namespace. */
export const NVME_ID_CNS_NS = 0;
/** Identify: the controller. */
export const NVME_ID_CNS_CTRL = 1;

/** The one namespace of a controller here. */
export const NVME_NSID = 1;

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
/** The namespace does not exist. */
export const NVME_SC_INVALID_NS = 0x00b;
/** Beyond the end of the namespace. */
export const NVME_SC_LBA_RANGE = 0x080;
/** No room. */
export const NVME_SC_CAP_EXCEEDED = 0x081;
/** The media could not be written. */
export const NVME_SC_WRITE_FAULT = 0x280;
/** The media could not be read. */
export const NVME_SC_READ_ERROR = 0x281;
/** Do not retry: the command would fail again. */
export const NVME_STATUS_DNR = 0x4000;
