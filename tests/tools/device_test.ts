/** The program that shows models beside their targets, and the page of its output. */

import { assert, assertEquals } from "@std/assert";
import { isOff, main, MODEL_NAMES, table } from "../../tools/device.ts";

Deno.test("docs/device-models.md is what the program prints, and all of it is on target", async () => {
  const page = new URL("../../docs/device-models.md", import.meta.url);
  const text = await Deno.readTextFile(page);
  let printed = "";
  assertEquals(main([], (part) => printed += part), 0);
  // What comes before the first table is said by hand.
  assertEquals(text.slice(text.indexOf("## null")), printed);
});

Deno.test("main() answers 2 for a model that there is not", () => {
  let said = "";
  assertEquals(main(["floppy"], (part) => said += part), 2);
  assert(said.includes(MODEL_NAMES.join(", ")));
  assert(said.includes('there is no preset "floppy"'));
  assertEquals(main(["--help"], () => {}), 0);
  assertEquals(main(["null", "zns"], () => {}), 2);
});

Deno.test("isOff() goes by the figure's tolerance, 5 % unless it says so", () => {
  const figure = { name: "x", unit: "µs", model: 106, target: 100 };
  assert(isOff(figure));
  assert(!isOff({ ...figure, tolerance: 0.1 }));
  assert(!isOff({ ...figure, model: 95.1 }));
  assert(table("null", [figure]).includes("6.0 % **off**"));
});
