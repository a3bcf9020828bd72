/**
 * fio's option vocabulary, as data: what each option is called, how its value
 * is written, and where it goes.
 *
 * Three kinds of option are told apart. Those of {@linkcode OPTIONS} work.
 * Those of {@linkcode UNSUPPORTED} are real in fio and refused here by name.
 * Any other is a mistake, and gets fio's words and a suggestion.
 *
 * @module
 */

import type { BlockSplit } from "./generators.ts";

/** One value for reads, writes and trims each. */
export type Triple = [number, number, number];

/** Follows the data directions `DDIR_READ`, `DDIR_WRITE`, `DDIR_TRIM`: fsync. */
export const DDIR_SYNC = 3;
/** fdatasync. */
export const DDIR_DATASYNC = 4;
/** sync_file_range. */
export const DDIR_SYNC_FILE_RANGE = 5;

/** A size in bytes, or a percentage of the file or device. */
export interface SizeValue {
  bytes: number;
  /** 1 and up where the value was a percentage, else 0. */
  percent: number;
}

/** `random_distribution`. */
export interface DistributionSpec {
  kind: "random" | "zipf" | "pareto" | "normal";
  /** theta, h, or the deviation in percent. */
  parameter: number;
  /** 0 to 1, or -1 where not given. */
  center: number;
}

/** Everything that a job file can say about one job. */
export interface JobOptions {
  name: string;
  description: string | null;
  /** Names as given, one a file; empty: from `filenameFormat`. */
  filename: string[];
  /** Spread over the clones; empty: the root. */
  directory: string[];
  filenameFormat: string;
  /** What fio calls the pattern: `randrw`. */
  rw: string;
  read: boolean;
  write: boolean;
  trim: boolean;
  random: boolean;
  /** I/Os between new random offsets (`rw=randread:8`). */
  seqCount: number;
  /** Bytes skipped after each sequential I/O (`rw=read:4k`). */
  seqAdd: number;
  rwSequencer: "sequential" | "identical";
  rwmixRead: number;
  percentageRandom: Triple;
  minBs: Triple;
  maxBs: Triple;
  bssplit: [BlockSplit[], BlockSplit[], BlockSplit[]];
  bsUnaligned: boolean;
  /** Alignment of random offsets; 0: the smallest block size. */
  blockalign: Triple;
  norandommap: boolean;
  distribution: DistributionSpec;
  randseed: number | null;
  randrepeat: boolean;
  allrandrepeat: boolean;
  size: SizeValue;
  ioSize: SizeValue;
  offset: SizeValue;
  offsetIncrement: SizeValue;
  offsetAlign: number;
  numberIos: number;
  loops: number;
  /** Low and high end; equal for one size, 0 for none. */
  filesize: [number, number];
  nrfiles: number;
  fileService: "roundrobin" | "sequential" | "random";
  fileServiceCount: number;
  createFsync: boolean;
  createOnOpen: boolean;
  createOnly: boolean;
  allowFileCreate: boolean;
  overwrite: boolean;
  unlink: boolean;
  fallocate: "none" | "native" | "posix" | "keep" | "truncate";
  /** `pattern`: after the job's own; null: none. */
  fadviseHint: "pattern" | "random" | "sequential" | null;
  invalidate: boolean;
  ioengine: string;
  iodepth: number;
  iodepthLow: number;
  batchSubmit: number;
  batchCompleteMin: number;
  batchCompleteMax: number;
  direct: boolean;
  sync: "none" | "sync" | "dsync";
  fsync: number;
  fdatasync: number;
  /** `SYNC_FILE_RANGE_*` and how many writes lie between. */
  syncFileRange: { flags: number; every: number };
  endFsync: boolean;
  fsyncOnClose: boolean;
  /** Microseconds, as are all times here. */
  runtime: number;
  timeBased: boolean;
  rampTime: number;
  startDelay: [number, number];
  /** Bytes a second; 0: unlimited. */
  rate: Triple;
  rateIops: Triple;
  rateProcess: "linear" | "poisson";
  thinktime: number;
  thinktimeSpin: number;
  thinktimeBlocks: number;
  thinktimeBlocksType: "complete" | "issue";
  numjobs: number;
  thread: boolean;
  stonewall: boolean;
  newGroup: boolean;
  groupReporting: boolean;
  zeroBuffers: boolean;
  refillBuffers: boolean;
  latPercentiles: boolean;
  clatPercentiles: boolean;
  slatPercentiles: boolean;
  percentileList: number[];
  unifiedRw: 0 | 1 | 2;
  diskUtil: boolean;
}

/** What a job is before any option is given. */
export function defaultOptions(): JobOptions {
  return {
    name: "",
    description: null,
    filename: [],
    directory: [],
    filenameFormat: "$jobname.$jobnum.$filenum",
    rw: "read",
    read: true,
    write: false,
    trim: false,
    random: false,
    seqCount: 1,
    seqAdd: 0,
    rwSequencer: "sequential",
    rwmixRead: 50,
    percentageRandom: [100, 100, 100],
    minBs: [4096, 4096, 4096],
    maxBs: [4096, 4096, 4096],
    bssplit: [[], [], []],
    bsUnaligned: false,
    blockalign: [0, 0, 0],
    norandommap: false,
    distribution: { kind: "random", parameter: 0, center: -1 },
    randseed: null,
    randrepeat: true,
    allrandrepeat: false,
    size: { bytes: 0, percent: 0 },
    ioSize: { bytes: 0, percent: 0 },
    offset: { bytes: 0, percent: 0 },
    offsetIncrement: { bytes: 0, percent: 0 },
    offsetAlign: 0,
    numberIos: 0,
    loops: 1,
    filesize: [0, 0],
    nrfiles: 0,
    fileService: "roundrobin",
    fileServiceCount: 1,
    createFsync: true,
    createOnOpen: false,
    createOnly: false,
    allowFileCreate: true,
    overwrite: false,
    unlink: false,
    fallocate: "native",
    fadviseHint: "pattern",
    invalidate: true,
    ioengine: "psync",
    iodepth: 1,
    iodepthLow: 0,
    batchSubmit: 1,
    batchCompleteMin: 1,
    batchCompleteMax: 0,
    direct: false,
    sync: "none",
    fsync: 0,
    fdatasync: 0,
    syncFileRange: { flags: 0, every: 0 },
    endFsync: false,
    fsyncOnClose: false,
    runtime: 0,
    timeBased: false,
    rampTime: 0,
    startDelay: [0, 0],
    rate: [0, 0, 0],
    rateIops: [0, 0, 0],
    rateProcess: "linear",
    thinktime: 0,
    thinktimeSpin: 0,
    thinktimeBlocks: 1,
    thinktimeBlocksType: "complete",
    numjobs: 1,
    thread: false,
    stonewall: false,
    newGroup: false,
    groupReporting: false,
    zeroBuffers: false,
    refillBuffers: false,
    latPercentiles: false,
    clatPercentiles: true,
    slatPercentiles: false,
    percentileList: [
      ...[1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95],
      ...[99, 99.5, 99.9, 99.95, 99.99],
    ],
    unifiedRw: 0,
    diskUtil: true,
  };
}

interface RowBase {
  name: string;
  alias?: string;
}

/**
 * One option. `set` stores a value that has the row's type; a text that it
 * returns is an error message, `""` one that needs no further words.
 */
export type OptionRow =
  & RowBase
  & (
    | { kind: "bool" | "flag"; set: (o: JobOptions, value: number) => void }
    /** `int`: with size suffixes. `time`: in microseconds. */
    | {
      kind: "int" | "time";
      min?: number;
      max?: number;
      /** Microseconds of a bare number, for times. */
      unit?: number;
      set: (o: JobOptions, value: number) => void;
    }
    | {
      kind: "triple";
      min: number;
      max?: number;
      set: (o: JobOptions, direction: number, value: number) => void;
    }
    /** Like `triple`, each a range `a-b`. */
    | {
      kind: "ranges";
      min: number;
      set: (o: JobOptions, dir: number, low: number, high: number) => void;
    }
    | { kind: "size"; set: (o: JobOptions, value: SizeValue) => void }
    /** One size or time, or a range of them. */
    | {
      kind: "intrange" | "timerange";
      min?: number;
      set: (o: JobOptions, low: number, high: number) => void;
    }
    | { kind: "floats"; max: number; set: (o: JobOptions, v: number[]) => void }
    | {
      kind: "text";
      set: (o: JobOptions, value: string) => string | void;
    }
    /** One of some words, with what follows a colon. */
    | {
      kind: "word";
      /** Word and its help; a word without an own meaning here has none. */
      words: readonly Word[];
      set: (o: JobOptions, word: string, rest: string) => string | void;
    }
  );

/** A value that an option knows, and fio's help for it. */
export interface Word {
  word: string;
  help: string;
  /** Real in fio, but not here. */
  unsupported?: true;
}

function words(...rows: [string, string, "unsupported"?][]): Word[] {
  return rows.map(([word, help, no]) =>
    no ? { word, help, unsupported: true } : { word, help }
  );
}

const RW_WORDS = words(
  ["read", "Sequential read"],
  ["write", "Sequential write"],
  ["trim", "Sequential trim"],
  ["randread", "Random read"],
  ["randwrite", "Random write"],
  ["randtrim", "Random trim"],
  ["rw", "Sequential read and write mix"],
  ["readwrite", "Sequential read and write mix"],
  ["randrw", "Random read and write mix"],
  ["trimwrite", "Trim and write mix, trims preceding writes"],
  ["randtrimwrite", "Randomly trim and write mix, trims preceding writes"],
);

const DISTRIBUTION_WORDS = words(
  ["random", "Completely random"],
  ["zipf", "Zipf distribution"],
  ["pareto", "Pareto distribution"],
  ["normal", "Normal (Gaussian) distribution"],
  ["zoned", "Zoned random distribution", "unsupported"],
  ["zoned_abs", "Zoned absolute random distribution", "unsupported"],
);

const FILE_SERVICE_WORDS = words(
  ["random", "Choose a file at random (uniform)"],
  ["zipf", "Zipf randomized", "unsupported"],
  ["pareto", "Pareto randomized", "unsupported"],
  ["normal", "Normal (Gaussian) randomized", "unsupported"],
  ["gauss", "Alias for normal", "unsupported"],
  ["roundrobin", "Round robin select files"],
  ["sequential", "Finish one file before moving to the next"],
);

/** How an engine issues its I/O. */
export type EngineKind = "sync" | "async" | "null";

/** Engines that work here. The asynchronous ones are one and the same. */
export const ENGINES: ReadonlyMap<string, EngineKind> = new Map([
  ["sync", "sync"],
  ["psync", "sync"],
  ["vsync", "sync"],
  ["pvsync", "sync"],
  ["pvsync2", "sync"],
  ["libaio", "async"],
  ["io_uring", "async"],
  ["posixaio", "async"],
  ["null", "null"],
]);

/** Engines that fio has and this program does not. */
export const UNSUPPORTED_ENGINES: ReadonlySet<string> = new Set(
  ("cpuio mmap net netsplice ftruncate filecreate filestat filedelete exec " +
    "falloc e4defrag splice gfapi gfapi_async mtd sg io_uring_cmd nbd rdma " +
    "rados rbd pmemblk dev-dax libpmem libzbc libblkio http external")
    .split(" "),
);

function setRw(o: JobOptions, word: string, rest: string): string | void {
  o.rw = word === "readwrite" ? "rw" : word;
  const kind = o.rw.replace(/^rand/, "");
  o.random = o.rw.startsWith("rand");
  o.read = kind === "read" || kind === "rw";
  o.write = kind === "write" || kind === "rw" || kind === "trimwrite";
  o.trim = kind === "trim" || kind === "trimwrite";
  o.seqCount = 1;
  o.seqAdd = 0;
  if (rest === "") return;
  if (!o.random) {
    const add = parseInteger(rest);
    if (add === null) return "fio: rw postfix parsing failed";
    o.seqAdd = add;
    return;
  }
  const count = /^\d+$/.test(rest) ? Number(rest) : 0;
  if (count < 1) return "";
  o.seqCount = count;
}

function setDistribution(
  o: JobOptions,
  word: string,
  rest: string,
): string | void {
  if (word === "random") {
    o.distribution = { kind: "random", parameter: 0, center: -1 };
    return;
  }
  const kind = word as "zipf" | "pareto" | "normal";
  const usual = kind === "zipf" ? 1.1 : kind === "pareto" ? 0.2 : 0;
  const [first = "", second] = rest.split(":");
  const parameter = first === "" ? usual : Number(first);
  const center = second === undefined ? -1 : Number(second);
  if (Number.isNaN(parameter) || Number.isNaN(center)) return "";
  if (center !== -1 && (center < 0 || center > 1)) {
    return "fio: random_center must be between 0.0 and 1.0";
  }
  if (kind === "zipf" && parameter === 1) {
    return "fio: zipf theta must different than 1.0";
  }
  if (kind === "pareto" && (parameter <= 0 || parameter >= 1)) {
    return "fio: pareto input out of range (0 < input < 1.0)";
  }
  if (kind === "normal" && (parameter < 0 || parameter > 100)) {
    return "fio: normal deviation out of range (0 <= input <= 100)";
  }
  o.distribution = { kind, parameter, center };
}

function setFileService(o: JobOptions, word: string, rest: string): void {
  o.fileService = word as JobOptions["fileService"];
  o.fileServiceCount = Math.max(1, Number.parseInt(rest || "1", 10) || 1);
}

/** `4k/60:8k/:16k,...`: an entry without a share takes part of what is left. */
function setBssplit(o: JobOptions, value: string): string | void {
  const parts = value.split(",");
  let last: BlockSplit[] = [];
  for (let dir = 0; dir < 3; dir++) {
    const part = parts[dir];
    if (part !== undefined) {
      const split = parseSplit(part);
      if (typeof split === "string") return split;
      last = split;
    }
    o.bssplit[dir] = last;
    if (last.length === 0) continue;
    o.minBs[dir] = Math.min(...last.map((s) => s.size));
    o.maxBs[dir] = Math.max(...last.map((s) => s.size));
  }
}

function parseSplit(text: string): BlockSplit[] | string {
  const entries: BlockSplit[] = [];
  for (const entry of text.split(":")) {
    if (entry === "") continue;
    const [sizeText = "", shareText = ""] = entry.split("/");
    const size = parseInteger(sizeText);
    if (size === null) return "fio: bssplit conversion failed";
    if (size < 1) return "fio: bssplit size must not be 0";
    if (shareText !== "" && !/^\d+$/.test(shareText)) {
      return `fio: bssplit percentage "${shareText}" is not a number`;
    }
    const percent = shareText === "" ? -1 : Math.min(100, Number(shareText));
    entries.push({ size, percent });
  }
  if (entries.length > 64) return "fio: bssplit takes at most 64 entries";
  const left = 100 - entries.reduce((n, e) => n + Math.max(0, e.percent), 0);
  const open = entries.filter((e) => e.percent < 0);
  // Percentages over 100 are taken as they are, but leave nothing to share.
  if (open.length > 0 && left < 0) {
    return "fio: bssplit percentages add to more than 100%";
  }
  const share = Math.floor(left / Math.max(1, open.length));
  open.forEach((e) => e.percent = share);
  return entries;
}

function setSyncFileRange(o: JobOptions, value: string): string | void {
  const [flagsText = "", everyText] = value.split(":");
  const bits: Record<string, number> = {
    wait_before: 1,
    write: 2,
    wait_after: 4,
  };
  let flags = 0;
  for (const word of flagsText.split(",")) {
    const bit = bits[word];
    if (bit === undefined) return "";
    flags |= bit;
  }
  const every = everyText === undefined ? 1 : Number(everyText);
  if (!Number.isInteger(every) || every < 1) return "";
  o.syncFileRange = { flags, every };
}

/** Splits at unescaped colons. */
function splitNames(value: string): string[] {
  return value.split(/(?<!\\):/).map((n) => n.replaceAll("\\:", ":"))
    .filter((n) => n !== "");
}

const FALLOCATE_WORDS = words(
  ["none", "Do not pre-allocate space"],
  ["native", "Use native pre-allocation if possible"],
  ["posix", "Use posix_fallocate()"],
  ["keep", "Use fallocate(..., FALLOC_FL_KEEP_SIZE, ...)"],
  ["truncate", "Truncate file to final size instead of allocating"],
  ["0", "Alias for 'none'"],
  ["1", "Alias for 'posix'"],
);

const UNIFIED_WORDS = words(
  ["none", "Normal statistics reporting"],
  ["mixed", "Statistics are summed per data direction and reported together"],
  [
    "both",
    "Statistics are reported normally, followed by the mixed statistics",
  ],
  ["0", "Alias for 'none'"],
  ["1", "Alias for 'mixed'"],
  ["2", "Alias for 'both'"],
);

type NumberField = {
  [K in keyof JobOptions]: JobOptions[K] extends number ? K : never;
}[keyof JobOptions];
type FlagField = {
  [K in keyof JobOptions]: JobOptions[K] extends boolean ? K : never;
}[keyof JobOptions];

function int(
  name: string,
  field: Exclude<NumberField, "unifiedRw">,
  limits: { min?: number; max?: number; alias?: string } = {},
): OptionRow {
  return { name, kind: "int", min: 0, ...limits, set: (o, v) => o[field] = v };
}

function bool(name: string, field: FlagField): OptionRow {
  return { name, kind: "bool", set: (o, v) => o[field] = v === 1 };
}

function flag(name: string, field: FlagField, alias?: string): OptionRow {
  const row: OptionRow = {
    name,
    kind: "flag",
    set: (o, v) => o[field] = v === 1,
  };
  return alias === undefined ? row : { ...row, alias };
}

function triple(
  name: string,
  field: "rate" | "rateIops" | "percentageRandom",
  max?: number,
): OptionRow {
  return {
    name,
    kind: "triple",
    min: 0,
    ...(max === undefined ? {} : { max }),
    set: (o, dir, v) => o[field][dir] = v,
  };
}

/** Options that work, in fio's order (which decides what a typo suggests). */
export const OPTIONS: readonly OptionRow[] = [
  {
    name: "description",
    kind: "text",
    set: (o, v) => void (o.description = v),
  },
  { name: "name", kind: "text", set: (o, v) => void (o.name = v) },
  {
    name: "filename",
    kind: "text",
    set: (o, v) => void (o.filename = splitNames(v)),
  },
  {
    name: "directory",
    kind: "text",
    set: (o, v) => void (o.directory = splitNames(v)),
  },
  {
    name: "filename_format",
    kind: "text",
    set: (o, v) => void (o.filenameFormat = v),
  },
  { name: "rw", alias: "readwrite", kind: "word", words: RW_WORDS, set: setRw },
  {
    name: "bs",
    alias: "blocksize",
    kind: "triple",
    min: 1,
    set: (o, dir, v) => {
      o.minBs[dir] = v;
      o.maxBs[dir] = v;
      o.bssplit[dir] = [];
    },
  },
  {
    name: "ba",
    alias: "blockalign",
    kind: "triple",
    min: 1,
    set: (o, dir, v) => o.blockalign[dir] = v,
  },
  {
    name: "bsrange",
    alias: "blocksize_range",
    kind: "ranges",
    min: 1,
    set: (o, dir, low, high) => {
      o.minBs[dir] = low;
      o.maxBs[dir] = high;
      o.bssplit[dir] = [];
    },
  },
  { name: "bssplit", kind: "text", set: setBssplit },
  flag("bs_unaligned", "bsUnaligned", "blocksize_unaligned"),
  bool("randrepeat", "randrepeat"),
  { name: "randseed", kind: "int", min: 0, set: (o, v) => o.randseed = v },
  flag("norandommap", "norandommap"),
  {
    name: "rw_sequencer",
    kind: "word",
    words: words(
      ["sequential", "Generate sequential offsets"],
      ["identical", "Generate identical offsets"],
    ),
    set: (o, w) => void (o.rwSequencer = w as JobOptions["rwSequencer"]),
  },
  {
    name: "ioengine",
    kind: "text",
    set: (o, v) => {
      o.ioengine = v;
    },
  },
  int("iodepth", "iodepth", { min: 1 }),
  int("iodepth_batch", "batchSubmit", { alias: "iodepth_batch_submit" }),
  int("iodepth_batch_complete_min", "batchCompleteMin", {
    alias: "iodepth_batch_complete",
  }),
  int("iodepth_batch_complete_max", "batchCompleteMax"),
  int("iodepth_low", "iodepthLow"),
  { name: "size", kind: "size", set: (o, v) => o.size = v },
  {
    name: "io_size",
    alias: "io_limit",
    kind: "size",
    set: (o, v) => o.ioSize = v,
  },
  {
    name: "filesize",
    kind: "intrange",
    min: 1,
    set: (o, low, high) => o.filesize = [low, high],
  },
  {
    name: "offset",
    alias: "fileoffset",
    kind: "size",
    set: (o, v) => o.offset = v,
  },
  {
    name: "offset_increment",
    kind: "size",
    set: (o, v) => o.offsetIncrement = v,
  },
  int("offset_align", "offsetAlign"),
  int("number_ios", "numberIos"),
  {
    name: "random_distribution",
    kind: "word",
    words: DISTRIBUTION_WORDS,
    set: setDistribution,
  },
  triple("percentage_random", "percentageRandom", 100),
  bool("allrandrepeat", "allrandrepeat"),
  int("nrfiles", "nrfiles", { alias: "nr_files" }),
  {
    name: "file_service_type",
    kind: "word",
    words: FILE_SERVICE_WORDS,
    set: setFileService,
  },
  {
    name: "fallocate",
    kind: "word",
    words: FALLOCATE_WORDS,
    set: (o, w) => {
      const word = w === "0" ? "none" : w === "1" ? "posix" : w;
      o.fallocate = word as JobOptions["fallocate"];
    },
  },
  {
    name: "fadvise_hint",
    kind: "word",
    words: words(
      ["0", "Don't issue fadvise/madvise"],
      ["1", "Advise using fio IO pattern"],
      ["random", "Advise using FADV_RANDOM"],
      ["sequential", "Advise using FADV_SEQUENTIAL"],
    ),
    set: (o, w) => {
      o.fadviseHint = w === "0"
        ? null
        : w === "1"
        ? "pattern"
        : w as JobOptions["fadviseHint"];
    },
  },
  int("fsync", "fsync"),
  int("fdatasync", "fdatasync"),
  { name: "sync_file_range", kind: "text", set: setSyncFileRange },
  bool("direct", "direct"),
  { name: "buffered", kind: "bool", set: (o, v) => o.direct = v === 0 },
  bool("overwrite", "overwrite"),
  int("loops", "loops"),
  int("numjobs", "numjobs"),
  {
    name: "startdelay",
    kind: "timerange",
    set: (o, low, high) => o.startDelay = [low, high],
  },
  {
    name: "runtime",
    alias: "timeout",
    kind: "time",
    unit: 1_000_000,
    set: (o, v) => o.runtime = v,
  },
  flag("time_based", "timeBased"),
  {
    name: "ramp_time",
    kind: "time",
    unit: 1_000_000,
    set: (o, v) => o.rampTime = v,
  },
  int("rwmixread", "rwmixRead", { max: 100 }),
  {
    name: "rwmixwrite",
    kind: "int",
    min: 0,
    max: 100,
    set: (o, v) => o.rwmixRead = 100 - v,
  },
  {
    name: "thinktime",
    kind: "time",
    unit: 1,
    set: (o, v) => o.thinktime = v,
  },
  {
    name: "thinktime_spin",
    kind: "time",
    unit: 1,
    set: (o, v) => o.thinktimeSpin = v,
  },
  int("thinktime_blocks", "thinktimeBlocks"),
  {
    name: "thinktime_blocks_type",
    kind: "word",
    words: words(
      ["complete", "thinktime_blocks completes"],
      ["issue", "thinktime_blocks issues"],
    ),
    set: (o, w) => {
      o.thinktimeBlocksType = w as JobOptions["thinktimeBlocksType"];
    },
  },
  triple("rate", "rate"),
  {
    name: "rate_process",
    kind: "word",
    words: words(
      ["linear", "Linear rate of IO"],
      ["poisson", "Rate follows Poisson process"],
    ),
    set: (o, w) => void (o.rateProcess = w as JobOptions["rateProcess"]),
  },
  triple("rate_iops", "rateIops"),
  bool("invalidate", "invalidate"),
  {
    name: "sync",
    kind: "word",
    words: words(["none", ""], ["0", ""], ["sync", ""], ["1", ""], [
      "dsync",
      "",
    ]),
    set: (o, w) => {
      const word = w === "0" ? "none" : w === "1" ? "sync" : w;
      o.sync = word as JobOptions["sync"];
    },
  },
  bool("create_fsync", "createFsync"),
  bool("create_on_open", "createOnOpen"),
  bool("create_only", "createOnly"),
  bool("allow_file_create", "allowFileCreate"),
  bool("end_fsync", "endFsync"),
  bool("fsync_on_close", "fsyncOnClose"),
  bool("unlink", "unlink"),
  flag("stonewall", "stonewall", "wait_for_previous"),
  flag("new_group", "newGroup"),
  flag("thread", "thread"),
  flag("group_reporting", "groupReporting"),
  flag("zero_buffers", "zeroBuffers"),
  flag("refill_buffers", "refillBuffers"),
  bool("clat_percentiles", "clatPercentiles"),
  bool("lat_percentiles", "latPercentiles"),
  bool("slat_percentiles", "slatPercentiles"),
  {
    name: "percentile_list",
    kind: "floats",
    max: 100,
    set: (o, v) => o.percentileList = v.sort((a, b) => a - b),
  },
  bool("disk_util", "diskUtil"),
  {
    name: "unified_rw_reporting",
    kind: "word",
    words: UNIFIED_WORDS,
    set: (o, w) => {
      o.unifiedRw = w === "mixed" || w === "1"
        ? 1
        : w === "both" || w === "2"
        ? 2
        : 0;
    },
  },
];

/**
 * Options that fio has and this program does not. A value after `=` changes
 * nothing in fio either, so it is accepted.
 */
const UNSUPPORTED: readonly string[] = (
  "wait_for lockfile=none unique_filename=1 opendir ignore_error " +
  "serialize_overlap=0 io_submit_mode=inline fill_device=0 fill_fs=0 " +
  "file_append=0 random_generator=tausworthe openfiles " +
  "write_barrier=0 atomic=0 verify_only=0 clocksource mem=malloc " +
  "iomem=malloc verify=0 do_verify verify_interval verify_offset " +
  "verify_pattern verify_fatal verify_dump verify_async verify_backlog " +
  "verify_backlog_batch experimental_verify verify_state_load " +
  "verify_state_save trim_percentage=0 trim_verify_zero trim_backlog " +
  "trim_backlog_batch write_iolog read_iolog read_iolog_chunked " +
  "replay_no_stall replay_redirect replay_scale replay_align " +
  "replay_time_scale replay_skip merge_blktrace_file " +
  "merge_blktrace_scalars merge_blktrace_iters exec_prerun exec_postrun " +
  "ioscheduler zonemode=none zonesize zonecapacity zonerange zoneskip " +
  "read_beyond_wp max_open_zones job_max_open_zones ignore_zone_limits " +
  "zone_reset_threshold zone_reset_frequency lockmem nice=0 prio prioclass " +
  "thinktime_iotime=0 rate_min ratemin rate_cycle ratecycle " +
  "rate_ignore_thinktime=0 rate_iops_min max_latency=0 latency_target=0 " +
  "latency_window latency_percentile latency_run=0 write_hint=none " +
  "create_serialize=1 allow_mounted_write pre_read=0 cpumask cpus_allowed " +
  "cpus_allowed_policy numa_cpu_nodes numa_mem_policy unlink_each_loop=0 " +
  "exitall=0 exit_what exitall_on_error=0 per_job_logs write_bw_log " +
  "bwavgtime=500 write_lat_log write_iops_log iopsavgtime=500 log_entries " +
  "log_avg_msec=0 log_hist_msec log_hist_coarseness write_hist_log " +
  "log_max_value log_offset log_prio log_compression log_compression_cpus " +
  "log_store_compressed log_unix_epoch log_alternate_epoch " +
  "log_alternate_epoch_clock_id block_error_percentiles=0 stats=1 " +
  "scramble_buffers=0 buffer_pattern buffer_compress_percentage=0 " +
  "buffer_compress_chunk dedupe_percentage=0 dedupe_mode " +
  "dedupe_working_set_percentage dedupe_global significant_figures=4 " +
  "gtod_reduce=0 disable_lat=0 disable_clat=0 disable_slat=0 " +
  "disable_bw_measurement=0 disable_bw=0 gtod_cpu continue_on_error=none " +
  "error_dump profile cgroup cgroup_nodelete cgroup_weight uid gid " +
  "kb_base=1024 unit_base=0 hugepage-size flow_id flow flow_sleep " +
  "steadystate ss steadystate_duration=0 ss_dur=0 steadystate_ramp_time " +
  "ss_ramp softrandommap=0 bs_is_seq_rand=0 userspace_reap=0 hipri=0 " +
  "hipri_percentage uncached=0 nowait=0 fixedbufs=0 registerfiles=0 " +
  "sqthread_poll=0 sqthread_poll_cpu nonvectored force_async=0 cmd_type " +
  "cmdprio_percentage=0 cmdprio_class cmdprio cmdprio_bssplit thp=0 " +
  "runstate_log priohint end_syncfs ramp_size verify_write_sequence " +
  "verify_header_seed log_window_value log_issue_time sprandom thinkcycles " +
  "libaio_vectored write_zone_remainders recover_zbd_write_error " +
  "dataplacement plids dedupe_window"
).split(" ");

/** Applied before all others, wherever they stand. */
export const FIRST_OPTIONS: ReadonlySet<string> = new Set(
  ["kb_base", "unit_base", "lockfile", "cpus_allowed_policy"],
);
/** Applied after all others. */
export const LAST_OPTIONS: ReadonlySet<string> = new Set(
  ["filename", "filename_format"],
);

const byName = new Map<string, OptionRow>();
for (const row of OPTIONS) {
  byName.set(row.name, row);
  if (row.alias !== undefined) byName.set(row.alias, row);
}

const unsupported = new Map<string, string | null>();
for (const entry of UNSUPPORTED) {
  const [name = "", harmless] = entry.split("=");
  unsupported.set(name, harmless ?? null);
}

/** The option of a name or an alias, or null. */
export function findOption(name: string): OptionRow | null {
  return byName.get(name) ?? null;
}

/**
 * Whether fio has an option that does not work here.
 *
 * @returns Null if fio does not know it; else whether `value` is the one that
 *   changes nothing.
 */
export function findUnsupported(
  name: string,
  value: string | null,
): { harmless: boolean } | null {
  const usual = unsupported.get(name);
  if (usual === undefined) return null;
  return { harmless: usual !== null && usual === value };
}

/** The option that somebody who wrote `name` may have meant, or null. */
export function closestOption(name: string): string | null {
  let best: string | null = null;
  let least = Infinity;
  for (const known of [...byName.keys(), ...unsupported.keys()]) {
    const distance = editDistance(name, known);
    if (distance < least) {
      least = distance;
      best = byName.get(known)?.name ?? known;
    }
  }
  return least <= Math.floor((name.length + 1) / 2) ? best : null;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

const SIZE_SUFFIX: Record<string, number> = {
  k: 1,
  m: 2,
  g: 3,
  t: 4,
  p: 5,
};

/**
 * Reads a whole number with fio's size suffixes: `4k`, `1MiB`, `0x10`.
 *
 * @returns Null if the text does not begin with a number. What follows it and
 *   is no suffix is left out, as fio does: see {@linkcode isExact}.
 */
export function parseInteger(text: string): number | null {
  const parts = /^\s*(-?)(0x[0-9a-f]+|\d+)([a-z]*)/i.exec(text);
  if (parts === null) return null;
  const suffix = parts[3]!.toLowerCase();
  const power = SIZE_SUFFIX[suffix[0] ?? ""] ?? 0;
  // `kib` is 1000 and `kb` 1024: the reverse of what the names say.
  const base = /^.ib$/.test(suffix) ? 1000 : 1024;
  const value = Number(parts[2]) * base ** power;
  return parts[1] === "-" ? -value : value;
}

/** Whether the whole text is one number with one suffix. */
export function isExact(text: string): boolean {
  return /^\s*-?(0x[0-9a-f]+|\d+)(b|[kmgtp](i?b?)?)?\s*$/i.test(text);
}

const TIME_SUFFIX: Record<string, number> = {
  us: 1,
  usec: 1,
  ms: 1_000,
  msec: 1_000,
  s: 1_000_000,
  sec: 1_000_000,
  m: 60_000_000,
  h: 3_600_000_000,
  d: 86_400_000_000,
};

/**
 * Reads a time.
 *
 * @param unit Microseconds that a bare number counts.
 * @returns Microseconds, or null if it is no time.
 */
export function parseTime(text: string, unit: number): number | null {
  const parts = /^\s*(\d+)\s*([a-z]*)\s*$/i.exec(text);
  if (parts === null) return null;
  const suffix = parts[2]!.toLowerCase();
  const scale = suffix === "" ? unit : TIME_SUFFIX[suffix];
  return scale === undefined ? null : Number(parts[1]) * scale;
}
