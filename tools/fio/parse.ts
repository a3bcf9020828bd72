/**
 * Reads job files and the command line, in fio's grammar and with fio's words
 * for what is wrong.
 *
 * A newcomer would get two things wrong. A `[global]` section changes only the
 * jobs below it. And the options of a section are not applied line by line: a
 * few are moved to the front or the end, so all lines are collected first.
 *
 * @module
 */

import {
  closestOption,
  defaultOptions,
  ENGINES,
  findOption,
  findUnsupported,
  FIRST_OPTIONS,
  isExact,
  type JobOptions,
  LAST_OPTIONS,
  type OptionRow,
  parseInteger,
  parseTime,
  UNSUPPORTED_ENGINES,
} from "./options.ts";

/** What the parser needs of the world around it. */
export interface ParseHost {
  /** An environment variable; undefined if it is not set. */
  env(name: string): string | undefined;
  /** Text of a file, `-` being standard input; null if it cannot be read. */
  read(path: string): string | null;
  /** Standard output: tables of valid values. */
  out(text: string): void;
  /** Standard error. */
  err(text: string): void;
}

/** One job as the user wrote it. */
export interface JobSpec {
  options: JobOptions;
  /** Options of its own with their text, in the order of fio's JSON. */
  given: [string, string][];
}

/** All jobs of a run. */
export interface JobSet {
  /** Options of the global sections. */
  global: [string, string][];
  jobs: JobSpec[];
}

/** The job set is wrong; everything about it has been printed. */
export class ParseError extends Error {}

/** One `name=value` and where it stands. */
interface OptionLine {
  /** As written, for messages. */
  text: string;
  name: string;
  /** Null where there is no `=`. */
  value: string | null;
  /** `job.fio line 3`, or `command line`. */
  origin: string;
  commandLine: boolean;
}

/** Collects jobs from files and from the command line. */
export class JobParser {
  readonly #host: ParseHost;
  readonly #sections: readonly string[];
  #defaults: JobSpec = { options: defaultOptions(), given: [] };
  readonly #jobs: JobSpec[] = [];

  /** @param sections Names of the only sections to take; empty for all. */
  constructor(host: ParseHost, sections: readonly string[] = []) {
    this.#host = host;
    this.#sections = sections;
  }

  /** What has been collected. */
  get result(): JobSet {
    return { global: this.#defaults.given, jobs: this.#jobs };
  }

  /**
   * Reads a job file.
   *
   * @param afterBarrier The file follows another one: its first job waits for
   *   all before it.
   * @throws {ParseError} After the message has been printed.
   */
  file(path: string, afterBarrier: boolean): void {
    const text = this.#host.read(path);
    if (text === null) {
      this.#fail(`fio: unable to open '${path}' job file`);
    }
    let section: { name: string; lines: OptionLine[] } | null = null;
    let barrier = afterBarrier;
    const finish = () => {
      if (section === null) return;
      const isJob = this.#section(section.name, section.lines, barrier);
      if (isJob) barrier = false;
      section = null;
    };
    for (const line of this.#lines(path, text)) {
      if (line.text.startsWith("[")) {
        finish();
        const end = line.text.indexOf("]");
        if (end < 0) {
          this.#fail(`fio: section name <${line.text}> does not end`);
        }
        section = { name: line.text.slice(1, end).slice(0, 255), lines: [] };
      } else if (section === null) {
        this.#fail(`fio: option <${line.text}> outside of [] job section`);
      } else {
        section.lines.push(...this.#include(path, line));
      }
    }
    finish();
  }

  /**
   * Adds a job, or defaults, from command line options.
   *
   * @param name Null before the first `--name`.
   * @throws {ParseError} After the message has been printed.
   */
  commandLine(name: string | null, options: [string, string | null][]): void {
    const lines = options.map(([option, value]) => ({
      text: value === null ? `--${option}` : `--${option}=${value}`,
      name: option,
      value,
      origin: "command line",
      commandLine: true,
    }));
    if (name === null || name === "global") {
      if (!this.#apply(this.#defaults, lines)) throw new ParseError("defaults");
    } else {
      this.#section(name, lines, false);
    }
  }

  #fail(message: string): never {
    this.#host.err(message + "\n");
    throw new ParseError(message);
  }

  /** @returns Whether the section was a job. */
  #section(name: string, lines: OptionLine[], barrier: boolean): boolean {
    if (name.startsWith("global")) {
      if (!this.#apply(this.#defaults, lines)) {
        this.#fail(`fio: job ${name} dropped`);
      }
      return false;
    }
    if (this.#sections.length > 0 && !this.#sections.includes(name)) {
      return false;
    }
    const job: JobSpec = {
      options: structuredClone(this.#defaults.options),
      given: [],
    };
    job.options.name = name;
    if (!this.#apply(job, lines)) {
      if (lines.some((l) => l.commandLine)) throw new ParseError(name);
      this.#fail(`fio: job ${job.options.name} dropped`);
    }
    if (barrier) job.options.stonewall = true;
    this.#check(job.options);
    this.#jobs.push(job);
    return true;
  }

  /** Lines with something in them; comments are cut off. */
  #lines(path: string, text: string): OptionLine[] {
    const lines: OptionLine[] = [];
    const rows = text.split("\n");
    for (let i = 0; i < rows.length; i++) {
      const content = rows[i]!.replace(/[;#].*$/, "").trim();
      if (content === "") continue;
      const equals = content.indexOf("=");
      lines.push({
        text: content,
        name: equals < 0 ? content : content.slice(0, equals).trimEnd(),
        value: equals < 0 ? null : content.slice(equals + 1).trimStart(),
        origin: `${path} line ${i + 1}`,
        commandLine: false,
      });
    }
    return lines;
  }

  /** The line, or the lines of the file that it includes. */
  #include(from: string, line: OptionLine): OptionLine[] {
    const match = /^include\s+(.+)$/.exec(line.text);
    if (match === null) return [line];
    const name = match[1]!.trim();
    const beside = from.includes("/")
      ? from.slice(0, from.lastIndexOf("/") + 1) + name
      : name;
    let path = name;
    let text = this.#host.read(path);
    if (text === null && !name.startsWith("/")) {
      path = beside;
      text = this.#host.read(path);
    }
    if (text === null) {
      this.#host.err(`fio: unable to open '${name}' job file\n`);
      this.#fail(`Error 1 while parsing include file ${name}`);
    }
    const lines: OptionLine[] = [];
    for (const inner of this.#lines(path, text)) {
      if (inner.text.startsWith("[")) {
        this.#host.err("No new sections in included files\n");
        this.#fail(`Error 1 while parsing include file ${name}`);
      }
      lines.push(...this.#include(path, inner));
    }
    return lines;
  }

  /** @returns False if a line was wrong; each has been told. */
  #apply(spec: JobSpec, lines: OptionLine[]): boolean {
    const known: OptionLine[] = [];
    const unknown: OptionLine[] = [];
    for (const line of lines) {
      const found = findOption(line.name) ??
        findUnsupported(line.name, line.value);
      (found === null ? unknown : known).push(line);
    }
    const rank = (l: OptionLine) =>
      FIRST_OPTIONS.has(l.name) ? 0 : LAST_OPTIONS.has(l.name) ? 2 : 1;
    known.sort((a, b) => rank(a) - rank(b));
    let ok = unknown.length === 0;
    for (const line of known) {
      if (!this.#applyOne(spec, line)) ok = false;
    }
    for (const line of unknown) this.#tellUnknown(line);
    return ok;
  }

  #tellUnknown(line: OptionLine): void {
    this.#host.err(
      line.commandLine
        ? `fio: unrecognized option '${line.text}'\n`
        : `Bad option <${line.text}>\n`,
    );
    const meant = closestOption(line.name);
    if (meant !== null) this.#host.err(`Did you mean ${meant}?\n`);
  }

  #applyOne(spec: JobSpec, line: OptionLine): boolean {
    const value = line.value === null ? null : this.#expand(line.value);
    if (this.#isUnsupported(line, value)) {
      const text = line.text.replace(/^--/, "");
      this.#host.err(
        `fio: option <${text}> is not supported (${line.origin})\n`,
      );
      return false;
    }
    const row = findOption(line.name);
    const wrong = row && new ValueReader(this.#host, row, spec.options)
      .read(value);
    if (wrong !== null) {
      for (const message of wrong) this.#host.err(message + "\n");
      this.#host.err(`fio: failed parsing ${line.text.replace(/^--/, "")}\n`);
      return false;
    }
    if (value !== null) spec.given.push([row?.name ?? line.name, value]);
    return true;
  }

  #isUnsupported(line: OptionLine, value: string | null): boolean {
    const other = findUnsupported(line.name, value);
    if (other !== null) return !other.harmless;
    const row = findOption(line.name)!;
    if (row.name === "ioengine") return UNSUPPORTED_ENGINES.has(value ?? "");
    if (row.kind !== "word") return false;
    const word = value?.split(":")[0];
    return row.words.some((w) => w.unsupported === true && w.word === word);
  }

  #expand(value: string): string {
    return value
      .replace(/\$\{([^}]*)\}/g, (_, name) => this.#host.env(name) ?? "")
      .replaceAll("$pagesize", "4096");
  }

  /** What one option alone cannot tell. */
  #check(o: JobOptions): void {
    if (o.numjobs === 0) {
      this.#fail("error: maximum number of jobs reached.");
    }
    if (!ENGINES.has(o.ioengine)) {
      this.#host.err(`fio: engine ${o.ioengine} not loadable\n`);
      this.#fail("fio: failed to load engine");
    }
    if (o.rate.some((r) => r > 0) && o.rateIops.some((r) => r > 0)) {
      this.#fail("fio: rate and rate_iops are mutually exclusive");
    }
    const smallest = smallestBlock(o);
    if (o.size.bytes > 0 && o.size.bytes < smallest) {
      this.#fail(
        "fio: size too small, must not be less than minimum block size: " +
          `${o.size.bytes} < ${smallest}`,
      );
    }
    if (o.percentileList.length > 20) {
      this.#fail("fio: percentile_list takes at most 20 percentiles");
    }
    if (o.blockalign.some((a) => a > 0) && o.random && !o.norandommap) {
      this.#host.err("fio: Any use of blockalign= turns off randommap\n");
      o.norandommap = true;
    }
    if (o.timeBased && o.runtime === 0) {
      this.#host.err("fio: time_based requires a runtime/timeout setting\n");
      o.timeBased = false;
    }
  }
}

/** Smallest block of the directions that the job uses, bytes. */
export function smallestBlock(o: JobOptions): number {
  const sizes: number[] = [];
  if (o.read) sizes.push(o.minBs[0]);
  if (o.write) sizes.push(o.minBs[1]);
  if (o.trim) sizes.push(o.minBs[2]);
  return Math.min(...sizes);
}

/** Largest block of the directions that the job uses, bytes. */
export function largestBlock(o: JobOptions): number {
  const sizes: number[] = [];
  if (o.read) sizes.push(o.maxBs[0]);
  if (o.write) sizes.push(o.maxBs[1]);
  if (o.trim) sizes.push(o.maxBs[2]);
  return Math.max(...sizes);
}

const NOTHING_TO_ADD: string[] = [];

/** Reads the value of one option and stores it. */
class ValueReader {
  readonly #host: ParseHost;
  readonly #row: OptionRow;
  readonly #o: JobOptions;

  constructor(host: ParseHost, row: OptionRow, options: JobOptions) {
    this.#host = host;
    this.#row = row;
    this.#o = options;
  }

  /** @returns Null if all is well; else what to print before "failed parsing". */
  read(value: string | null): string[] | null {
    const row = this.#row;
    if (value === null) {
      if (row.kind !== "flag") {
        return [`Option ${row.name} requires an argument`];
      }
      row.set(this.#o, 1);
      return null;
    }
    if (value === "") return NOTHING_TO_ADD;
    switch (row.kind) {
      case "bool":
      case "flag":
        return this.#bool(row, value);
      case "int":
      case "time":
        return this.#number(row, value);
      case "triple":
        return this.#triple(row, value);
      case "ranges":
        return this.#ranges(row, value);
      case "size":
        return this.#size(row, value);
      case "intrange":
      case "timerange":
        return this.#range(row, value);
      case "floats":
        return this.#floats(row, value);
      case "word":
        return this.#word(row, value);
      case "text": {
        const message = row.set(this.#o, value);
        return message === undefined ? null : message === "" ? [] : [message];
      }
    }
  }

  #bool(
    row: OptionRow & { kind: "bool" | "flag" },
    value: string,
  ): string[] | null {
    if (!/^\d+$/.test(value)) return NOTHING_TO_ADD;
    const n = Number(value);
    if (n > 1) return [`max value out of range: ${n} (1 max)`];
    row.set(this.#o, n);
    return null;
  }

  #number(
    row: OptionRow & { kind: "int" | "time" },
    value: string,
  ): string[] | null {
    const n = row.kind === "time"
      ? this.#time(value, row.unit ?? 1)
      : this.#integer(value);
    if (n === null) return NOTHING_TO_ADD;
    const wrong = this.#outOfRange(n, row.min, row.max);
    if (wrong !== null) return [wrong];
    row.set(this.#o, n);
    return null;
  }

  #triple(row: OptionRow & { kind: "triple" }, value: string) {
    // fio takes `4k-16k` for reads and writes, not for a range.
    const parts = value.split(/,|(?<=^[^(]+)[:-]/);
    if (parts.length > 3) return NOTHING_TO_ADD;
    let last: number | null = null;
    for (let dir = 0; dir < 3; dir++) {
      const part = parts[dir];
      if (part === "") {
        last = null;
        continue;
      }
      if (part !== undefined) last = this.#integer(part);
      if (last === null) {
        if (part !== undefined) return NOTHING_TO_ADD;
        continue;
      }
      const wrong = this.#outOfRange(last, row.min, row.max);
      if (wrong !== null) return [wrong];
      row.set(this.#o, dir, last);
    }
    return null;
  }

  #ranges(row: OptionRow & { kind: "ranges" }, value: string) {
    const parts = value.split(/[,/]/);
    let last: [number, number] | null = null;
    for (let dir = 0; dir < 3; dir++) {
      const part = parts[dir];
      if (part !== undefined) {
        const ends = /^([^-:]+)[-:]([^-:]+)$/.exec(part);
        const low = ends && this.#integer(ends[1]!);
        const high = ends && this.#integer(ends[2]!);
        if (low === null || high === null) return NOTHING_TO_ADD;
        last = low <= high ? [low, high] : [high, low];
      }
      const wrong = this.#outOfRange(last![0], row.min, undefined);
      if (wrong !== null) return [wrong];
      row.set(this.#o, dir, last![0], last![1]);
    }
    return null;
  }

  #size(row: OptionRow & { kind: "size" }, value: string) {
    const share = /^\s*(\d+)%$/.exec(value);
    if (share !== null) {
      const percent = Number(share[1]);
      if (percent > 100) {
        return [`${row.name}: max value out of range: ${percent}% (100% max)`];
      }
      row.set(this.#o, { bytes: 0, percent });
      return null;
    }
    const bytes = this.#integer(value);
    if (bytes === null) return NOTHING_TO_ADD;
    const wrong = this.#outOfRange(bytes, 0, undefined);
    if (wrong !== null) return [wrong];
    row.set(this.#o, { bytes, percent: 0 });
    return null;
  }

  #range(
    row: OptionRow & { kind: "intrange" | "timerange" },
    value: string,
  ): string[] | null {
    const ends = value.split("-");
    if (ends.length > 2) return NOTHING_TO_ADD;
    const read = (text: string) =>
      row.kind === "timerange" ? this.#time(text, 1e6) : this.#integer(text);
    const low = read(ends[0]!);
    const high = ends[1] === undefined ? low : read(ends[1]);
    if (low === null || high === null) return NOTHING_TO_ADD;
    const wrong = this.#outOfRange(Math.min(low, high), row.min, undefined);
    if (wrong !== null) return [wrong];
    row.set(this.#o, Math.min(low, high), Math.max(low, high));
    return null;
  }

  #floats(row: OptionRow & { kind: "floats" }, value: string) {
    const list: number[] = [];
    for (const part of value.split(":")) {
      const n = Number(part);
      if (part === "" || Number.isNaN(n) || n < 0) return NOTHING_TO_ADD;
      if (n > row.max) {
        return [
          `value out of range: ${n.toFixed(6)} ` +
          `(range max: ${row.max.toFixed(6)})`,
        ];
      }
      list.push(n);
    }
    row.set(this.#o, list);
    return null;
  }

  #word(row: OptionRow & { kind: "word" }, value: string) {
    const colon = value.indexOf(":");
    const word = colon < 0 ? value : value.slice(0, colon);
    if (!row.words.some((w) => w.word === word)) {
      this.#host.out(validValues(row.words));
      return NOTHING_TO_ADD;
    }
    const rest = colon < 0 ? "" : value.slice(colon + 1);
    const message = row.set(this.#o, word, rest);
    return message === undefined ? null : message === "" ? [] : [message];
  }

  #integer(text: string): number | null {
    if (text.trimStart().startsWith("(")) return arithmetic(text, parseInteger);
    const n = parseInteger(text);
    if (n !== null && !isExact(text)) {
      this.#host.err(`fio: ${this.#row.name}: "${text}" reads as ${n}\n`);
    }
    return n;
  }

  #time(text: string, unit: number): number | null {
    // Inside parentheses a bare number counts microseconds.
    return text.trimStart().startsWith("(")
      ? arithmetic(text, (t) => parseTime(t, 1))
      : parseTime(text, unit);
  }

  #outOfRange(n: number, min?: number, max?: number): string | null {
    const name = this.#row.name;
    if (min !== undefined && n < min) {
      return `${name}: min value out of range: ${n} (${min} min)`;
    }
    if (max !== undefined && n > max) {
      return `${name}: max value out of range: ${n} (${max} max)`;
    }
    return null;
  }
}

function validValues(words: readonly { word: string; help: string }[]): string {
  let text = "";
  for (const [i, { word, help }] of words.entries()) {
    const label = i === 0 ? "        valid values" : " ".repeat(20);
    text += `${label}: ${word.padEnd(10)} ${help}`.trimEnd() + "\n";
  }
  return text + "\n";
}

/**
 * Works out `(2*1024*1k)`: + - * / % ^ and parentheses.
 *
 * @param number Reads one operand.
 * @returns Null if it does not parse.
 */
function arithmetic(
  text: string,
  number: (text: string) => number | null,
): number | null {
  const tokens = text.match(/[()+\-*/%^]|[0-9][0-9a-z.]*/gi) ?? [];
  if (tokens.join("") !== text.replaceAll(/\s/g, "")) return null;
  let at = 0;
  const levels = [["+", "-"], ["*", "/", "%"], ["^"]];
  const compute = (a: number, op: string, b: number): number => {
    switch (op) {
      case "+":
        return a + b;
      case "-":
        return a - b;
      case "*":
        return a * b;
      case "/":
        return Math.trunc(a / b);
      case "%":
        return a % b;
      default:
        return a ** b;
    }
  };
  const operand = (): number => {
    const token = tokens[at++];
    if (token === "-") return -operand();
    if (token !== "(") return number(token ?? "") ?? NaN;
    const inner = level(0);
    return tokens[at++] === ")" ? inner : NaN;
  };
  const level = (depth: number): number => {
    if (depth === levels.length) return operand();
    let value = level(depth + 1);
    while (levels[depth]!.includes(tokens[at] ?? "")) {
      const op = tokens[at++]!;
      value = compute(value, op, level(depth + 1));
    }
    return value;
  };
  const value = level(0);
  return at === tokens.length && Number.isFinite(value)
    ? Math.trunc(value)
    : null;
}
