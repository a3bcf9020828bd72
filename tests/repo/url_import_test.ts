/**
 * Another project imports the modules by URL: with no configuration of ours, no
 * import map and no permission.
 */
import { assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);

const PROGRAM = `
import { createNvme, mkfsXfs, mount, VirtualClock, xfs } from "${ROOT}mod.ts";
import { iomapDioRw } from "${ROOT}iomap/mod.ts";
import { Bio } from "${ROOT}block/mod.ts";

const device = createNvme(new VirtualClock(), { size: 64 * 2 ** 20 });
await mkfsXfs(device);
const fs = await mount(device, xfs);
const file = await fs.open("/a", { read: true, write: true, create: true });
await file.write(new TextEncoder().encode("hello"));
const back = new Uint8Array(5);
file.readSync(back, { at: 0 });
file.close();
await fs.unmount();
device.close();
console.log(new TextDecoder().decode(back), typeof iomapDioRw, typeof Bio);
`;

Deno.test("the entry points work by URL without import map and permissions", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/main.ts`, PROGRAM);
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", "--no-config", "main.ts"],
      cwd: folder,
      env: { NO_COLOR: "1" },
    }).output();
    const text = new TextDecoder();
    assertEquals(text.decode(stderr), "");
    assertEquals(text.decode(stdout), "hello function function\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
