/**
 * Numbers as fio prints them: sizes and rates cut to a few characters, and
 * decimals rounded as C's printf rounds them.
 *
 * @module
 */

const POWER_OF_TWO_PREFIXES = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const POWER_OF_TEN_PREFIXES = ["", "k", "M", "G", "T", "P", "E"];
/** Digits looked at behind the last printed one; a double has 17. */
const TIE_DIGITS = 30;

/**
 * A number with a fixed count of decimals, as C's `%.Nf` prints it: a value
 * exactly between two decimals goes to the even one, where `toFixed` goes up.
 *
 * @param value Any number below 1e21.
 * @param digits Decimals, 0 to 70.
 */
export function fixed(value: number, digits: number): string {
  const long = value.toFixed(digits + TIE_DIGITS);
  const tail = long.slice(-TIE_DIGITS);
  const head = long.slice(0, -TIE_DIGITS).replace(/\.$/, "");
  const lastDigit = Number(head.at(-1));
  const isTie = tail === "5".padEnd(TIE_DIGITS, "0");
  return isTie && lastDigit % 2 === 0 ? head : value.toFixed(digits);
}

/**
 * A number in at most `maxLength` characters, prefix and unit not counted: it
 * is divided until its whole part fits, then decimals fill what room is left.
 *
 * @param value Whole number, 0 or more.
 * @param maxLength Characters for digits and decimal point; 4 almost everywhere.
 * @param pow2 Divide by 1024 (`KiB`), not by 1000 (`kB`).
 * @param unit What follows the prefix.
 */
export function num2str(
  value: number,
  maxLength: number,
  pow2: boolean,
  unit: "" | "B",
): string {
  const base = pow2 ? 1024 : 1000;
  const prefixes = pow2 ? POWER_OF_TWO_PREFIXES : POWER_OF_TEN_PREFIXES;
  let whole = value;
  let rest = 0;
  let power = 0;
  while (String(whole).length > maxLength && power < prefixes.length - 1) {
    rest = whole % base;
    whole = Math.floor(whole / base);
    power += 1;
  }
  const decimals = maxLength - String(whole).length - 1;
  if (power === 0) return whole + unit;
  if (decimals < 1) {
    return whole + (rest >= base / 2 ? 1 : 0) + prefixes[power]! + unit;
  }
  // fio rounds the fraction alone: 10.15 is "10.1" although its double is above.
  const [carry, fraction] = fixed(rest / base, decimals).split(".");
  return `${whole + Number(carry)}.${fraction}${prefixes[power]!}${unit}`;
}
