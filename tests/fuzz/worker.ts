/**
 * Tries spoilt images, one for each message.
 *
 * @module
 */

import { setWarningHandler } from "../../lib/bug.ts";
import { setLogHandler } from "../../lib/printk.ts";
import { fuzzBases, runFuzz } from "../fs/xfs/fuzz.ts";
import { OPTION_SETS } from "../fs/xfs/option_sets.ts";

/** What came of one image. */
export interface Answer {
  /** What it should never come to; null if it did not. */
  failure: string | null;
  mounted: boolean;
  /** Whether something was found to be corrupt. */
  noticed: boolean;
}

const port = self as unknown as {
  onmessage: (event: MessageEvent<number>) => void;
  postMessage(answer: Answer): void;
};

let warning: string | null = null;
setLogHandler(() => {});
setWarningHandler((message) => warning ??= `WARNING: ${message}`);
const bases = fuzzBases(OPTION_SETS.length);

async function tryImage(seed: number): Promise<Answer> {
  warning = null;
  const all = await bases;
  try {
    const { mounted, errors } = await runFuzz(all[seed % all.length]!, seed);
    const noticed = errors.has("EUCLEAN") || errors.has("EBADMSG");
    return { failure: warning, mounted, noticed };
  } catch (error) {
    const failure = error instanceof Error ? error.stack! : String(error);
    return { failure, mounted: true, noticed: false };
  }
}

port.onmessage = async ({ data }) => port.postMessage(await tryImage(data));
