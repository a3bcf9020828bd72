/**
 * The text of the kernel's trace file: what all tracepoints have in common there.
 *
 * Kernel counterpart: kernel/trace/trace_output.c, /sys/kernel/tracing/trace.
 *
 * @module
 */

/** Who does all I/O here. */
const COMM = "iomap";
const PID = 1;

/**
 * One event as a line of the trace file, without the line's end.
 *
 * @param time Nanoseconds of the event's clock.
 * @param name Of the tracepoint.
 * @param fields As its `print fmt` shows them.
 */
export function traceLine(time: number, name: string, fields: string): string {
  const us = Math.floor(time / 1000);
  const seconds = `${Math.floor(us / 1e6)}`.padStart(5);
  const fraction = `${us % 1e6}`.padStart(6, "0");
  const task = `${COMM.padStart(16)}-${`${PID}`.padEnd(7)}`;
  return `${task} [000] ..... ${seconds}.${fraction}: ${name}: ${fields}`;
}

/** Lines as the trace file shows them, with its head. */
export function traceFile(lines: readonly string[]): string {
  const count = `${lines.length}/${lines.length}`;
  const file = [
    "# tracer: nop",
    "#",
    `# entries-in-buffer/entries-written: ${count}   #P:1`,
    "#",
    "#                                _-----=> irqs-off/BH-disabled",
    "#                               / _----=> need-resched",
    "#                              | / _---=> hardirq/softirq",
    "#                              || / _--=> preempt-depth",
    "#                              ||| / _-=> migrate-disable",
    "#                              |||| /     delay",
    "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION",
    "#              | |         |   |||||     |         |",
    ...lines,
    "",
  ];
  return file.join("\n");
}

/** Names of bits, in the order in which they print. */
export type FlagNames = readonly (readonly [number, string])[];

/** Flags as "A|B"; bits without a name as one hex number at the end (kernel:
 * `__print_flags`). */
export function printFlags(table: FlagNames, flags: number): string {
  const parts: string[] = [];
  for (const [bit, name] of table) {
    if ((flags & bit) === 0) continue;
    parts.push(name);
    flags &= ~bit;
  }
  if (flags !== 0) parts.push(printHex(flags));
  return parts.join("|");
}

/** A number as "0x1f"; -1 as the largest of 64 bits (kernel: `%llx`). */
export function printHex(n: number): string {
  return n === -1 ? "0xffffffffffffffff" : `0x${n.toString(16)}`;
}
