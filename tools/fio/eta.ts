/**
 * The line that shows how far a run is, laid out as fio's.
 *
 * It is drawn at most a few times a second of real time, and speaks of the
 * clock's time: on a virtual clock a minute may pass between two lines.
 *
 * @module
 */

import type { Clock } from "../../mod.ts";
import type { Job } from "./job.ts";
import { num2str } from "./num2str.ts";

const REDRAW_MS = 250;
const SEC = 1_000_000_000;

/** Shows the progress of a run's jobs. */
export class Progress {
  readonly #jobs: readonly Job[];
  readonly #clock: Clock;
  readonly #write: (text: string) => void;
  #drawnAt = performance.now();
  #width = 0;
  #since: number;
  readonly #bytes = [0, 0, 0];
  readonly #ios = [0, 0, 0];

  /** @param write Where the line goes; it ends without a newline. */
  constructor(
    jobs: readonly Job[],
    clock: Clock,
    write: (text: string) => void,
  ) {
    this.#jobs = jobs;
    this.#clock = clock;
    this.#write = write;
    this.#since = clock.now();
  }

  /** Draws the line if the last one is old enough. */
  poll(): void {
    const now = performance.now();
    if (now - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = now;
    const line = this.#line();
    this.#write("\r" + line.padEnd(this.#width));
    this.#width = line.length;
  }

  /** Takes the line away. */
  end(): void {
    if (this.#width > 0) this.#write("\r" + " ".repeat(this.#width) + "\r");
  }

  #line(): string {
    const running = this.#jobs.filter((j) =>
      j.phase !== "setup" && j.phase !== "finished"
    );
    const files = running.reduce((n, job) => n + job.files.length, 0);
    const share = Math.min(...this.#jobs.map((job) => job.progress));
    return `Jobs: ${running.length} (f=${files}): [${this.#letters()}]` +
      `[${(share * 100).toFixed(1)}%]${this.#rates()}[eta ${this.#eta(share)}]`;
  }

  /** One letter a job; equal neighbours are counted. */
  #letters(): string {
    const groups: [string, number][] = [];
    for (const job of this.#jobs) {
      const letter = jobLetter(job);
      const last = groups.at(-1);
      if (last?.[0] === letter) last[1]++;
      else groups.push([letter, 1]);
    }
    return groups.map(([letter, n]) => `${letter}(${n})`).join(",");
  }

  #rates(): string {
    const now = this.#clock.now();
    const seconds = (now - this.#since) / SEC;
    this.#since = now;
    const bandwidth: string[] = [];
    const iops: string[] = [];
    for (let ddir = 0; ddir < 3; ddir++) {
      const of = this.#jobs.map((job) => job.stats.directions[ddir]!);
      const bytes = of.reduce((n, d) => n + d.bytes, 0);
      const ios = of.reduce((n, d) => n + d.ios, 0);
      // The end of a ramp takes back what was counted.
      const moved = Math.max(0, bytes - this.#bytes[ddir]!);
      const done = Math.max(0, ios - this.#ios[ddir]!);
      this.#bytes[ddir] = bytes;
      this.#ios[ddir] = ios;
      if (done === 0 || seconds === 0) continue;
      const letter = "rwt"[ddir];
      const rate = Math.round(moved / seconds);
      bandwidth.push(`${letter}=${num2str(rate, 4, true, "B")}/s`);
      iops.push(
        `${letter}=${num2str(Math.round(done / seconds), 4, false, "")}`,
      );
    }
    if (iops.length === 0) return "";
    return `[${bandwidth.join(",")}][${iops.join(",")} IOPS]`;
  }

  #eta(share: number): string {
    if (share === 0) return "--";
    const started = Math.min(...this.#jobs.map((job) => job.startNs));
    const spent = (this.#clock.now() - started) / SEC;
    const left = Math.round(spent / share - spent);
    const two = (n: number) => String(n).padStart(2, "0");
    const days = Math.floor(left / 86400);
    const hours = Math.floor(left / 3600) % 24;
    return (days > 0 ? `${two(days)}d:` : "") +
      (days + hours > 0 ? `${two(hours)}h:` : "") +
      `${two(Math.floor(left / 60) % 60)}m:${two(left % 60)}s`;
  }
}

/** fio's letter for what a job does. */
function jobLetter(job: Job): string {
  switch (job.phase) {
    case "setup":
      return "P";
    case "delayed":
      return "I";
    case "ramp":
      return "/";
    case "syncing":
      return "F";
    case "finished":
      return job.stats.error === 0 ? "_" : "X";
  }
  const { read, write, trim, random } = job.options;
  const letter = read && write ? "m" : read ? "r" : write && !trim ? "w" : "d";
  return random ? letter : letter.toUpperCase();
}
