/**
 * Running jobs: layout of files, order of jobs, limits, engines, failures. Most
 * tests run on files that are only numbers here, with a fixed time for each I/O;
 * the last ones run tools/fio.ts on the whole stack.
 */
import { assert, assertEquals } from "@std/assert";
import { FsError, VirtualClock } from "../../mod.ts";
import type {
  IoFile,
  IoOpen,
  Layout,
  Storage,
} from "../../tools/fio/engines.ts";
import { main } from "../../tools/fio.ts";
import { JobParser } from "../../tools/fio/parse.ts";
import type { ReportJob } from "../../tools/fio/report.ts";
import { ctime, fileNames, runJobs } from "../../tools/fio/run.ts";
import { defaultOptions } from "../../tools/fio/options.ts";

const USEC = 1000;
const ENOENT = 2;
const ENOSPC = 28;

/** Files without contents; a direct I/O takes 20 us, a sync 100 us. */
class FakeStorage implements Storage {
  readonly clock = new VirtualClock();
  readonly deviceName = null;
  readonly sizes = new Map<string, number>();
  readonly log: string[] = [];
  /** Bytes that fit. */
  capacity = Infinity;
  /** Most bytes that one call moves. */
  atMost = Infinity;
  inFlight = 0;
  deepest = 0;

  sizeOf(path: string): Promise<number | null> {
    return Promise.resolve(this.sizes.get(path) ?? null);
  }
  makeDirectory(path: string): Promise<void> {
    this.log.push(`mkdir ${path}`);
    return Promise.resolve();
  }
  layOut(path: string, layout: Layout): Promise<FsError | null> {
    const kind = layout.contents === null ? "empty" : "full";
    this.log.push(`layout ${path} ${layout.size} ${kind}`);
    this.sizes.set(path, layout.size);
    return Promise.resolve(null);
  }
  unlink(path: string): Promise<void> {
    this.log.push(`unlink ${path}`);
    this.sizes.delete(path);
    return Promise.resolve();
  }
  open(path: string, how: IoOpen): Promise<IoFile> {
    const size = this.sizes.get(path);
    if (size === undefined && !how.create) {
      return Promise.reject(new FsError(ENOENT, "Cannot open"));
    }
    this.log.push(`open ${path} at ${this.clock.now()}`);
    if (size === undefined) this.sizes.set(path, 0);
    return Promise.resolve(new FakeFile(this, path, how.direct));
  }

  move(path: string, at: number, length: number, write: boolean): number {
    const n = Math.min(length, this.atMost);
    const size = this.sizes.get(path)!;
    if (!write) return Math.max(0, Math.min(n, size - at));
    if (at + n > this.capacity) throw new FsError(ENOSPC, "Cannot write");
    this.sizes.set(path, Math.max(size, at + n));
    return n;
  }
}

class FakeFile implements IoFile {
  readonly #storage: FakeStorage;
  readonly #path: string;
  readonly #direct: boolean;

  constructor(storage: FakeStorage, path: string, direct: boolean) {
    this.#storage = storage;
    this.#path = path;
    this.#direct = direct;
  }
  async #later(at: number, length: number, write: boolean): Promise<number> {
    const s = this.#storage;
    s.deepest = Math.max(s.deepest, ++s.inFlight);
    if (this.#direct) await s.clock.sleep(20 * USEC);
    s.inFlight--;
    return s.move(this.#path, at, length, write);
  }
  read(buffer: Uint8Array, at: number): Promise<number> {
    return this.#later(at, buffer.length, false);
  }
  write(buffer: Uint8Array, at: number): Promise<number> {
    return this.#later(at, buffer.length, true);
  }
  readNow(buffer: Uint8Array, at: number): number {
    return this.#storage.move(this.#path, at, buffer.length, false);
  }
  writeNow(buffer: Uint8Array, at: number): number {
    return this.#storage.move(this.#path, at, buffer.length, true);
  }
  trim(): Promise<void> {
    return Promise.reject(new FsError(25, "Cannot trim"));
  }
  sync(): Promise<void> {
    this.#storage.log.push("sync");
    return this.#storage.clock.sleep(100 * USEC);
  }
  syncData(): Promise<void> {
    return this.sync();
  }
  syncRange(): Promise<void> {
    return Promise.resolve();
  }
  invalidate(): Promise<void> {
    this.#storage.log.push(`invalidate ${this.#path}`);
    return Promise.resolve();
  }
  advise(order: string): Promise<void> {
    this.#storage.log.push(`advise ${this.#path} ${order}`);
    return Promise.resolve();
  }
  close(): Promise<void> {
    this.#storage.log.push(`close ${this.#path}`);
    return Promise.resolve();
  }
}

interface Ran {
  jobs: ReportJob[];
  failed: number;
  announced: string;
  err: string;
  storage: FakeStorage;
}

async function run(text: string, storage = new FakeStorage()): Promise<Ran> {
  let announced = "", err = "";
  const parser = new JobParser({
    env: () => undefined,
    read: () => text,
    out: () => {},
    err: (t) => err += t,
  });
  parser.file("t.fio", false);
  const { report, failed } = await runJobs(parser.result, storage, {
    seed: 1,
    virtual: true,
    announce: (t) => announced += t,
    info: (t) => err += t,
    err: (t) => err += t,
    progress: null,
    disks: () => [],
    onStart: () => {},
  });
  return { jobs: report.jobs, failed, announced, err, storage };
}

/** Reads, writes and trims of a job. */
function ios(job: ReportJob): number[] {
  return job.stats.directions.map((d) => d.ios);
}

Deno.test("runJobs() announces jobs, processes and layouts as fio does", async () => {
  const { announced, storage } = await run(
    "[r]\nrw=randread\nsize=4m\nnrfiles=4\n[w]\nrw=write\nsize=1m\nnumjobs=2\n",
  );
  assertEquals(announced.split("\n").slice(1), [
    "w: (g=0): rw=write, bs=(R) 4096B-4096B, (W) 4096B-4096B, (T) 4096B-4096B, " +
    "ioengine=psync, iodepth=1",
    "...",
    "fio-3.33",
    "Starting 3 processes",
    "r: Laying out IO files (4 files / total 4MiB)",
    "w: Laying out IO file (1 file / 1MiB)",
    "w: Laying out IO file (1 file / 1MiB)",
    "",
  ]);
  assertEquals(storage.log.filter((l) => l.startsWith("layout")), [
    "layout r.0.0 1048576 full",
    "layout r.0.1 1048576 full",
    "layout r.0.2 1048576 full",
    "layout r.0.3 1048576 full",
    "layout w.0.0 1048576 empty",
    "layout w.1.0 1048576 empty",
  ]);
});

Deno.test("runJobs() leaves a file alone that is large enough", async () => {
  const storage = new FakeStorage();
  storage.sizes.set("f", 2 ** 20);
  const { announced, jobs } = await run(
    "[a]\nfilename=f\nrw=read\nsize=1m\n",
    storage,
  );
  assert(!announced.includes("Laying out"));
  assertEquals(ios(jobs[0]!), [256, 0, 0]);
});

Deno.test("runJobs() takes the size of an existing file without size=", async () => {
  const storage = new FakeStorage();
  storage.sizes.set("f", 64 * 1024);
  const whole = await run("[a]\nfilename=f\nrw=read\n", storage);
  assertEquals(ios(whole.jobs[0]!), [16, 0, 0]);
  const half = await run("[a]\nfilename=f\nrw=read\nsize=50%\n", storage);
  assertEquals(ios(half.jobs[0]!), [8, 0, 0]);
});

Deno.test("runJobs() moves io_size bytes, number_ios I/Os, or loops", async () => {
  const of = async (rest: string) =>
    ios((await run(`[a]\nrw=randread\nsize=64k\n${rest}\n`)).jobs[0]!)[0];
  assertEquals(await of("io_size=160k"), 40);
  assertEquals(await of("io_size=8k"), 2);
  assertEquals(await of("number_ios=5"), 5);
  assertEquals(await of("loops=3"), 48);
  assertEquals(await of("io_size=256k\nloops=2"), 64);
  assertEquals(await of("io_size=96k\nloops=3"), 48);
});

Deno.test("runJobs() counts syncs apart, and issues none after the last write", async () => {
  const { jobs, storage } = await run(
    "[a]\nrw=write\nsize=256k\nfsync=16\nend_fsync=1\n",
  );
  const { stats } = jobs[0]!;
  assertEquals(ios(jobs[0]!), [0, 64, 0]);
  assertEquals(stats.sync.tally.count, 3);
  assertEquals(storage.log.filter((l) => l === "sync").length, 4);
  assertEquals(stats.depths[0], 67);
});

Deno.test("runJobs() charges the host for a page-cache hit", async () => {
  const { jobs } = await run("[a]\nrw=read\nsize=64k\n");
  const { clat, slat } = jobs[0]!.stats.directions[0];
  assertEquals([clat.tally.min, clat.tally.max], [710, 710]);
  assertEquals(slat.tally.count, 0);
});

Deno.test("runJobs() keeps iodepth I/Os in flight and splits slat from clat", async () => {
  const { jobs, storage } = await run(
    "[a]\nrw=randread\nsize=1m\nioengine=libaio\ndirect=1\niodepth=8\n",
  );
  const { stats } = jobs[0]!;
  assertEquals(storage.deepest, 8);
  assertEquals(Array.from(stats.depths), [1, 2, 4, 249, 0, 0, 0]);
  const { slat, clat, lat } = stats.directions[0];
  assertEquals([slat.tally.min, slat.tally.max], [300, 300]);
  assert(clat.tally.min >= 20 * USEC);
  assertEquals(lat.tally.min, clat.tally.min + 300);
});

Deno.test("runJobs() submits and reaps in batches", async () => {
  const { jobs } = await run(
    "[a]\nrw=read\nsize=256k\nioengine=io_uring\ndirect=1\niodepth=16\n" +
      "iodepth_batch=8\niodepth_batch_complete_min=8\n",
  );
  const { submits, completes } = jobs[0]!.stats;
  assertEquals(submits[2], 8);
  assert(completes[2]! > 0);
});

Deno.test("runJobs() stops at the runtime, and time_based goes on until then", async () => {
  const { jobs } = await run(
    "[a]\nrw=randread\nsize=64k\ndirect=1\ntime_based\nruntime=10ms\n",
  );
  const read = jobs[0]!.stats.directions[0];
  assertEquals(read.runtimeMs, 11);
  assertEquals(read.ios, Math.ceil(10_000 / 20.3));
  const short = await run(
    "[a]\nrw=randread\nsize=64m\ndirect=1\nruntime=10ms\n",
  );
  assertEquals(ios(short.jobs[0]!), [read.ios, 0, 0]);
});

Deno.test("runJobs() does not count the ramp time", async () => {
  const { jobs } = await run(
    "[a]\nrw=read\nsize=64k\ndirect=1\ntime_based\nruntime=10ms\n" +
      "ramp_time=5ms\n",
  );
  const read = jobs[0]!.stats.directions[0];
  assertEquals(read.ios, Math.ceil(10_000 / 20.3));
  assertEquals(Math.floor(jobs[0]!.jobRuntimeMs / 5), 3);
});

Deno.test("runJobs() starts jobs together, a stonewall after all before it", async () => {
  const { storage, jobs } = await run(`
[global]
size=64k
direct=1
rw=read
[a]
[b]
startdelay=1ms
[c]
stonewall
`);
  const opened = (name: string) =>
    Number(
      storage.log.find((l) => l.startsWith(`open ${name}`))!.split(" ")[3],
    );
  assertEquals(opened("a.0.0"), 0);
  assertEquals(opened("b.0.0"), 1000 * USEC);
  assert(opened("c.0.0") > 1300 * USEC);
  assertEquals(jobs.map((j) => j.groupid), [0, 0, 1]);
});

Deno.test("runJobs() folds jobs of a group under group_reporting", async () => {
  const { jobs } = await run(
    "[global]\nsize=64k\nrw=read\ngroup_reporting\n" +
      "[a]\nnumjobs=3\n[b]\n[c]\nstonewall\n",
  );
  assertEquals(jobs.map((j) => [j.name, j.clones]), [["a", 4], ["c", 1]]);
  assertEquals(ios(jobs[0]!), [64, 0, 0]);
});

Deno.test("runJobs() holds a rate, evenly or as a Poisson process", async () => {
  const { jobs } = await run(`
[global]
size=1m
direct=1
time_based
runtime=1s
rate_iops=500
[even]
rw=randread
[poisson]
rw=randread
rate_process=poisson
`);
  const counts = jobs.map((job) => ios(job)[0]!);
  assertEquals(counts[0], 500);
  assert(counts[1] !== 500 && Math.abs(counts[1]! - 500) < 80);
});

Deno.test("runJobs() thinks after every few blocks", async () => {
  const { jobs } = await run(
    "[a]\nrw=read\nsize=64k\ndirect=1\nthinktime=1ms\nthinktime_blocks=4\n",
  );
  assertEquals(jobs[0]!.jobRuntimeMs, 4);
});

Deno.test("runJobs() thinks after blocks that are done, or issued if told so", async () => {
  const runtime = async (type: string) => {
    const { jobs } = await run(
      "[a]\nrw=read\nsize=64k\ndirect=1\nioengine=libaio\niodepth=8\n" +
        `thinktime=1ms\nthinktime_blocks=4\nthinktime_blocks_type=${type}\n`,
    );
    return jobs[0]!.jobRuntimeMs;
  };
  // As fio's own run shows with longer pauses.
  assertEquals([await runtime("complete"), await runtime("issue")], [2, 4]);
});

Deno.test("runJobs() tells the host the order of its I/O, as fadvise_hint says", async () => {
  const hints = async (text: string) => {
    const { storage } = await run(`[a]\nsize=4k\n${text}\n`);
    return storage.log.filter((line) => line.startsWith("advise"));
  };
  assertEquals(await hints("rw=read"), ["advise a.0.0 sequential"]);
  assertEquals(await hints("rw=randread"), ["advise a.0.0 random"]);
  const other = "rw=read\nfadvise_hint=random";
  assertEquals(await hints(other), ["advise a.0.0 random"]);
  assertEquals(await hints("rw=read\nfadvise_hint=0"), []);
  assertEquals(await hints("rw=read\ndirect=1"), []);
});

Deno.test("runJobs() goes on after a short transfer, and counts it", async () => {
  const storage = new FakeStorage();
  storage.atMost = 3000;
  const { jobs, failed } = await run("[a]\nrw=write\nsize=16k\n", storage);
  assertEquals([failed, jobs[0]!.stats.directions[1].shortIos], [0, 4]);
  assertEquals(jobs[0]!.stats.directions[1].bytes, 16384);
});

Deno.test("runJobs() ends a job at its first failure, in fio's words", async () => {
  const storage = new FakeStorage();
  storage.capacity = 8192;
  const { jobs, failed, err } = await run(
    "[a]\nrw=write\nsize=64k\n[b]\nrw=read\nsize=4k\n",
    storage,
  );
  assertEquals(failed, 1);
  assertEquals(
    err,
    "fio: io_u error on file a.0.0: No space left on device: " +
      "write offset=8192, buflen=4096\n" +
      "fio: pid=1, err=28/func=io_u error, error=No space left on device\n",
  );
  assertEquals(jobs.map((j) => j.stats.error), [28, 0]);
  assertEquals(
    jobs[0]!.errorText,
    "func=io_u error, error=No space left on device",
  );
  assertEquals(jobs[0]!.stats.directions[1].bytes, 8192);
});

Deno.test("runJobs() fails an asynchronous job once all in flight has ended", async () => {
  const storage = new FakeStorage();
  storage.capacity = 32 * 1024;
  const { jobs, failed } = await run(
    "[a]\nrw=write\nsize=1m\nioengine=libaio\ndirect=1\niodepth=4\n",
    storage,
  );
  assertEquals([failed, jobs[0]!.stats.error, storage.inFlight], [1, 28, 0]);
  assertEquals(storage.log.at(-1), "close a.0.0");
});

Deno.test("runJobs() fails a trim of a regular file", async () => {
  const { jobs, failed } = await run("[a]\nrw=trim\nsize=64k\n");
  assertEquals([failed, jobs[0]!.stats.error], [1, 25]);
  assert(jobs[0]!.errorText!.startsWith("func=td_io_queue"));
});

Deno.test("runJobs() does not run what cannot be set up, and reports it as failed", async () => {
  const noSize = await run("[a]\nrw=read\n");
  const [entry] = noSize.jobs;
  assertEquals([noSize.failed, noSize.jobs.length], [1, 1]);
  assertEquals([entry!.stats.error, entry!.stats.totalIos], [22, 0]);
  assertEquals(
    noSize.err,
    "a: you need to specify size=\n" +
      "fio: pid=0, err=22/func=total_file_size, error=Invalid argument\n",
  );
  const noCreate = await run(
    "[a]\nrw=read\nsize=4k\nallow_file_create=0\n[b]\nrw=read\nsize=4k\n",
  );
  assertEquals(noCreate.failed, 1);
  assertEquals(
    noCreate.err,
    "fio: file creation disallowed by allow_file_create=0\n",
  );
  const listed = noCreate.jobs.map(({ name, stats }) => [name, stats.totalIos]);
  assertEquals(listed, [["a", 0], ["b", 1]]);
});

Deno.test("runJobs() needs no files for the null engine", async () => {
  const { jobs, storage } = await run(
    "[a]\nrw=randrw\nsize=1m\nioengine=null\niodepth=4\n[b]\nrw=read\n" +
      "size=64k\nioengine=null\n",
  );
  assertEquals(storage.log, []);
  const [reads, writes] = ios(jobs[0]!);
  assertEquals(reads! + writes!, 256);
  assertEquals(ios(jobs[1]!), [16, 0, 0]);
});

Deno.test("runJobs() prints the same for the same seed", async () => {
  const text = "[a]\nrw=randrw\nsize=1m\nrandrepeat=0\nnumjobs=2\n" +
    "bsrange=4k-16k\nioengine=libaio\ndirect=1\niodepth=4\n";
  const [one, two] = [await run(text), await run(text)];
  const summary = (ran: Ran) =>
    JSON.stringify(
      ran.jobs.map((j) => [j.ctime, j.ctx, j.jobRuntimeMs, ios(j)]),
    );
  assertEquals(summary(one), summary(two));
});

Deno.test("fileNames() spreads directories over clones and fills formats", () => {
  const o = {
    ...defaultOptions(),
    name: "j",
    nrfiles: 2,
    directory: ["x", "y"],
  };
  assertEquals(fileNames(o, 0), ["x/j.0.0", "x/j.0.1"]);
  assertEquals(fileNames(o, 1), ["y/j.1.0", "y/j.1.1"]);
  const shared = { ...o, filenameFormat: "s.$filenum", nrfiles: 0 };
  assertEquals(fileNames(shared, 2), ["x/s.0"]);
});

Deno.test("ctime() prints as C does", () => {
  assertEquals(ctime(1_735_689_600e9), "Wed Jan  1 00:00:00 2025");
  assertEquals(ctime(1_795_172_447e9), "Fri Nov 20 11:00:47 2026");
});

const DATA = new URL("../data/fio/", import.meta.url);
const EXAMPLES = new URL("../../examples/", import.meta.url);

/** Runs tools/fio.ts in this process; the output goes through a file. */
async function fio(...args: string[]): Promise<{ code: number; out: string }> {
  const output = await Deno.makeTempFile();
  try {
    const code = await main([`--output=${output}`, ...args]);
    return { code, out: await Deno.readTextFile(output) };
  } finally {
    await Deno.remove(output);
  }
}

function pathOf(name: string, folder = DATA): string {
  return new URL(name, folder).pathname;
}

Deno.test("fio prints the same bytes for the same seed on the virtual clock", async () => {
  const args = [
    "--output-format=normal,json",
    "--seed=7",
    pathOf("randrw.fio", EXAMPLES),
  ];
  const one = await fio(...args);
  const two = await fio(...args);
  assertEquals(one.code, 0);
  assertEquals(one.out, two.out);
});

interface JsonDirection {
  io_bytes: number;
  total_ios: number;
}

/** What each job of a JSON report moved, per direction. */
function moved(json: string): [number, number][][] {
  const { jobs } = JSON.parse(json) as {
    jobs: Record<string, JsonDirection>[];
  };
  return jobs.map((job) =>
    ["read", "write", "mixed"].filter((d) => d in job)
      .map((d) => [job[d]!.io_bytes, job[d]!.total_ios])
  );
}

for (
  const name of [
    "01-randread-qd8",
    "02-seqwrite-fsync",
    "03-mixed-bssplit-group",
    "05-layout-then-mixed-reporting",
  ]
) {
  Deno.test(`fio moves with ${name}.fio what the real fio moved`, async () => {
    Deno.env.set("FIO_DIR", "data");
    const { code, out } = await fio(
      "--output-format=json",
      pathOf(`${name}.fio`),
    );
    assertEquals(code, 0);
    const real = await Deno.readTextFile(new URL(`json/${name}.out`, DATA));
    assertEquals(moved(out), moved(real));
  });
}

Deno.test("fio runs 06-rated-poisson.fio at about its rates", async () => {
  Deno.env.set("FIO_DIR", "data");
  const { code, out } = await fio(
    "--output-format=json",
    pathOf("06-rated-poisson.fio"),
  );
  assertEquals(code, 0);
  const [[, reads], [, writes]] = moved(out)[0]! as [
    [number, number],
    [number, number],
  ];
  // The real fio's Poisson streams gave 1984 and 521 in one second.
  assert(Math.abs(reads - 1984) <= 2, `${reads} reads`);
  assert(Math.abs(writes - 521) <= 2, `${writes} writes`);
});

Deno.test("fio refuses 04-write-verify.fio, naming the option and the line", async () => {
  const path = pathOf("04-write-verify.fio");
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-read", "--allow-env", "tools/fio.ts", path],
    cwd: new URL("../../", import.meta.url),
    env: { FIO_DIR: "data", NO_COLOR: "1" },
  });
  const { code, stdout, stderr } = await command.output();
  assertEquals([code, stdout.length], [1, 0]);
  const err = new TextDecoder().decode(stderr);
  const want =
    `fio: option <verify=crc32c> is not supported (${path} line 13)\n`;
  assert(err.includes(want), err);
});

Deno.test("fio uses an image again that it made", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const image = `--image=${folder}/disk`;
    const job = ["--name=a", "--filename=f", "--size=1m", "--rw=read"];
    const first = await fio(image, "--size=64m", ...job);
    assertEquals(first.code, 0);
    assert(first.out.includes("a: Laying out IO file (1 file / 1MiB)"));
    const second = await fio(image, ...job);
    assertEquals(second.code, 0);
    assert(!second.out.includes("Laying out"));
    assert(second.out.includes("issued rwts: total=256,0,0,0"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("fio runs on the bare device with --fs=none", async () => {
  const { code, out } = await fio(
    ...["--fs=none", "--size=64m", "--name=a", "--rw=randrw", "--direct=1"],
    ...["--ioengine=libaio", "--iodepth=8", "--io_size=1m", "--fsync=32"],
  );
  assertEquals(code, 0);
  assert(out.includes("fsync/fdatasync/sync_file_range:"));
  assert(/nvme0n1: ios=\d+\/\d+/.test(out));
});

Deno.test("fio says what file it cannot use, and leaves it alone", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const job = ["--name=a", "--size=4k"];
    const table: [string[], string][] = [
      [[folder], `fio: unable to open '${folder}' job file\n`],
      [[`--output=${folder}/none/o`, ...job], "fio: output file open error: "],
      [[`--image=${folder}`, ...job], `fio: Cannot open image "${folder}"`],
    ];
    for (const [args, want] of table) {
      const command = new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-check", "-RWE", "tools/fio.ts", ...args],
        cwd: new URL("../../", import.meta.url),
        env: { NO_COLOR: "1" },
      });
      const { code, stderr } = await command.output();
      const err = new TextDecoder().decode(stderr);
      assert(code === 1 && err.startsWith(want), `${code} ${err}`);
    }
    assertEquals([...Deno.readDirSync(folder)], []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
