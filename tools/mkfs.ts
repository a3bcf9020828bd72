/**
 * Makes a file system on an image, with the options of mkfs.xfs.
 *
 * ```sh
 * deno task mkfs xfs --size 512M IMAGE
 * deno task mkfs xfs -b size=1024 -m rmapbt=1 -L label IMAGE
 * ```
 *
 * @module
 */

import { parseArgs } from "node:util";
import {
  createNvme,
  FileMedia,
  mkfsXfs,
  type MkfsXfsOptions,
  RealClock,
  type XfsGeometry,
} from "../mod.ts";

const USAGE = `usage: mkfs xfs [options] IMAGE

  --size SIZE                   of the image; makes it if there is none
  -b size=SIZE                  block size
  -d agcount=N,agsize=SIZE,size=SIZE,su=SIZE,sw=N,sunit=N,swidth=N
  -f                            also where something is already
  -i size=SIZE,maxpct=N,sparse=0|1,nrext64=0|1
  -l size=SIZE,su=SIZE,sunit=N  log
  -L LABEL
  -m crc=1,finobt=0|1,rmapbt=0|1,reflink=0|1,bigtime=0|1,inobtcount=0|1,uuid=UUID
  -n size=SIZE,ftype=1          directory blocks
  -q                            do not print what was made
  -s size=SIZE                  sector size

A size may end in k, m, g, t, in b for blocks or s for sectors.
`;

/** Bytes at the start of an image that are looked at for what is there. */
const PROBED = 128 * 1024;

/** Something that was asked for and cannot be. */
class Refusal extends Error {}

/** What to do with the value of a suboption. */
type Take = (value: string) => void;

const UNITS: Record<string, number> = {
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
};

/** Turns the words of a command line into options. */
export class CommandLine {
  readonly options: MkfsXfsOptions = {};
  image = "";
  /** Of the image; null for what it has. */
  size: number | null = null;
  force = false;
  quiet = false;
  #blockSize = 4096;
  #sectorSize = 512;
  /** Stripe unit, and the units of its width, until both are known. */
  #su = 0;
  #sw = 0;

  /** @returns False if only help was wanted. */
  parse(args: string[]): boolean {
    const text = { type: "string", multiple: true } as const;
    const flag = { type: "boolean" } as const;
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        size: { type: "string" },
        block: { ...text, short: "b" },
        data: { ...text, short: "d" },
        force: { ...flag, short: "f" },
        inode: { ...text, short: "i" },
        log: { ...text, short: "l" },
        label: { type: "string", short: "L" },
        metadata: { ...text, short: "m" },
        naming: { ...text, short: "n" },
        quiet: { ...flag, short: "q" },
        sector: { ...text, short: "s" },
        help: { ...flag, short: "h" },
      },
    });
    if (values.help) return false;
    const [type, image, ...more] = positionals;
    if (type !== "xfs" || image === undefined || more.length > 0) {
      throw new Refusal(USAGE.trimEnd());
    }
    this.image = image;
    this.force = values.force === true;
    this.quiet = values.quiet === true;
    if (values.label !== undefined) this.options.label = values.label;
    // Sizes may be in blocks or sectors.
    this.#take("-b", values.block, this.#block());
    this.#take("-s", values.sector, this.#sector());
    this.#take("-d", values.data, this.#data());
    this.#take("-i", values.inode, this.#inode());
    this.#take("-l", values.log, this.#log());
    this.#take("-m", values.metadata, this.#metadata());
    this.#take("-n", values.naming, this.#naming());
    if (values.size !== undefined) {
      this.size = this.#bytes("--size", values.size);
    }
    this.#stripe();
    return true;
  }

  #take(
    option: string,
    given: string[] | undefined,
    known: Record<string, Take>,
  ): void {
    for (const part of (given ?? []).flatMap((text) => text.split(","))) {
      const at = part.indexOf("=");
      const name = at < 0 ? part : part.slice(0, at);
      const take = Object.hasOwn(known, name) ? known[name] : undefined;
      if (take === undefined) {
        throw new Refusal(`unknown option ${option} ${name}`);
      }
      if (at < 0) throw new Refusal(`${option} ${name} requires a value`);
      take(part.slice(at + 1));
    }
  }

  #block(): Record<string, Take> {
    return {
      size: (v) =>
        this.options.blockSize = this.#blockSize = this.#bytes("-b size", v),
    };
  }

  #sector(): Record<string, Take> {
    return {
      size: (v) =>
        this.options.sectorSize = this.#sectorSize = this.#bytes("-s size", v),
    };
  }

  #data(): Record<string, Take> {
    const o = this.options;
    return {
      agcount: (v) => o.agCount = this.#number("-d agcount", v),
      agsize: (v) => o.agSize = this.#bytes("-d agsize", v),
      size: (v) => this.size = this.#bytes("-d size", v),
      su: (v) => this.#su = this.#bytes("-d su", v),
      sw: (v) => this.#sw = this.#number("-d sw", v),
      sunit: (v) => o.stripeUnit = 512 * this.#number("-d sunit", v),
      swidth: (v) => o.stripeWidth = 512 * this.#number("-d swidth", v),
    };
  }

  #inode(): Record<string, Take> {
    const o = this.options;
    return {
      size: (v) => o.inodeSize = this.#bytes("-i size", v),
      maxpct: (v) => {
        const percent = this.#number("-i maxpct", v);
        // As mkfs.xfs takes it: 0 is what suits the size.
        if (percent > 0) o.imaxPct = percent;
      },
      sparse: (v) => o.sparseInodes = this.#flag("-i sparse", v),
      nrext64: (v) => o.nrext64 = this.#flag("-i nrext64", v),
      projid32bit: (v) => this.#fixed("-i projid32bit", v),
    };
  }

  #log(): Record<string, Take> {
    const o = this.options;
    return {
      size: (v) => o.logSize = this.#bytes("-l size", v),
      su: (v) => o.logStripeUnit = this.#bytes("-l su", v),
      sunit: (v) => o.logStripeUnit = 512 * this.#number("-l sunit", v),
      internal: (v) => this.#fixed("-l internal", v),
      "lazy-count": (v) => this.#fixed("-l lazy-count", v),
    };
  }

  #metadata(): Record<string, Take> {
    const o = this.options;
    return {
      crc: (v) => this.#fixed("-m crc", v),
      finobt: (v) => o.finobt = this.#flag("-m finobt", v),
      rmapbt: (v) => o.rmapbt = this.#flag("-m rmapbt", v),
      reflink: (v) => o.reflink = this.#flag("-m reflink", v),
      bigtime: (v) => o.bigtime = this.#flag("-m bigtime", v),
      inobtcount: (v) => o.inobtcount = this.#flag("-m inobtcount", v),
      uuid: (v) => o.uuid = v,
    };
  }

  #naming(): Record<string, Take> {
    return {
      size: (v) => this.options.dirBlockSize = this.#bytes("-n size", v),
      ftype: (v) => this.#fixed("-n ftype", v),
    };
  }

  /** The width is told in units. */
  #stripe(): void {
    if (this.#su === 0 && this.#sw === 0) return;
    if (this.#su === 0 || this.#sw === 0) {
      throw new Refusal("both data su and data sw options must be specified");
    }
    this.options.stripeUnit = this.#su;
    this.options.stripeWidth = this.#su * this.#sw;
  }

  #bytes(option: string, text: string): number {
    const match = /^(\d+)([kmgtbs]?)$/i.exec(text);
    if (match === null) {
      throw new Refusal(`invalid value ${text} for ${option}`);
    }
    const unit = match[2]!.toLowerCase();
    const units: Record<string, number> = {
      ...UNITS,
      b: this.#blockSize,
      s: this.#sectorSize,
    };
    return Number(match[1]) * (units[unit] ?? 1);
  }

  #number(option: string, text: string): number {
    if (/^\d+$/.test(text)) return Number(text);
    throw new Refusal(`invalid value ${text} for ${option}`);
  }

  #flag(option: string, text: string): boolean {
    if (text === "0" || text === "1") return text === "1";
    throw new Refusal(`invalid value ${text} for ${option}, 0 or 1`);
  }

  /** Something that version 5 cannot be without. */
  #fixed(option: string, text: string): void {
    if (!this.#flag(option, text)) {
      throw new Refusal(`${option}=0 is not supported`);
    }
  }
}

/** Geometry as mkfs.xfs and xfs_info print it. */
function describeGeometry(g: XfsGeometry, name: string): string {
  const n = Number;
  const left = (text: string | number, width: number) =>
    String(text).padEnd(width);
  const line = (section: string, what: string, rest: string) =>
    `${left(section, 9)}=${left(what, 22)} ${rest}`;
  const logSector = g.sectorSize > 512 ? g.sectorSize : 512;
  const logUnit = g.logStripeUnit > 1 ? g.logStripeUnit / g.blockSize : 0;
  return [
    line(
      "meta-data",
      name,
      `isize=${left(g.inodeSize, 6)} agcount=${g.agCount}, ` +
        `agsize=${g.agBlocks} blks`,
    ),
    line("", "", `sectsz=${left(g.sectorSize, 5)} attr=2, projid32bit=1`),
    line(
      "",
      "",
      `crc=${left(1, 8)} finobt=${n(g.finobt)}, sparse=${n(g.sparseInodes)}, ` +
        `rmapbt=${n(g.rmapbt)}`,
    ),
    line(
      "",
      "",
      `reflink=${left(n(g.reflink), 4)} bigtime=${n(g.bigtime)} ` +
        `inobtcount=${n(g.inobtcount)} nrext64=${n(g.nrext64)}`,
    ),
    line(
      "data",
      "",
      `bsize=${left(g.blockSize, 6)} blocks=${g.dataBlocks}, ` +
        `imaxpct=${g.imaxPct}`,
    ),
    line(
      "",
      "",
      `sunit=${left(g.stripeUnit, 6)} swidth=${g.stripeWidth} blks`,
    ),
    line(
      "naming",
      "version 2",
      `bsize=${left(g.dirBlockSize, 6)} ascii-ci=0, ftype=1`,
    ),
    line(
      "log",
      "internal log",
      `bsize=${left(g.blockSize, 6)} blocks=${g.logBlocks}, version=2`,
    ),
    line(
      "",
      "",
      `sectsz=${left(logSector, 5)} sunit=${logUnit} blks, lazy-count=1`,
    ),
    line(
      "realtime",
      "none",
      `extsz=${left(g.rtExtentBlocks * g.blockSize, 6)} blocks=0, rtextents=0`,
    ),
  ].join("\n");
}

/** Bytes of an image; 0 if there is none. */
function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/** Whether something else than zeroes is at the start of an image. */
function isUsed(path: string): boolean {
  using file = Deno.openSync(path, { read: true });
  const data = new Uint8Array(PROBED);
  const n = file.readSync(data) ?? 0;
  return data.subarray(0, n).some((byte) => byte !== 0);
}

async function make(line: CommandLine): Promise<void> {
  const { image, options } = line;
  const has = sizeOf(image);
  if (has > 0 && !line.force && isUsed(image)) {
    throw new Refusal(
      `${image} appears to contain something already; use -f to force overwrite`,
    );
  }
  if (has === 0 && line.size === null) {
    throw new Refusal(`there is no ${image}, and no --size for it`);
  }
  if (has > 0 && line.size !== null && has !== line.size) {
    Deno.truncateSync(image, line.size);
  }
  const media = FileMedia.open(
    image,
    line.size === null ? {} : {
      size: line.size,
    },
  );
  // A plain disk, whatever the model says of larger units.
  const device = createNvme(new RealClock(), { preset: "null", media });
  try {
    const made = await mkfsXfs(device, {
      sectorSize: 512,
      uuid: crypto.randomUUID(),
      ...options,
    });
    if (!line.quiet) console.log(describeGeometry(made, image));
  } finally {
    device.close();
  }
}

/** @returns What to exit with. */
async function main(args: string[]): Promise<number> {
  try {
    const line = new CommandLine();
    if (line.parse(args)) await make(line);
    else console.log(USAGE.trimEnd());
    return 0;
  } catch (error) {
    console.error(`mkfs: ${error instanceof Error ? error.message : error}`);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
