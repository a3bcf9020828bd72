import { assertEquals } from "@std/assert";
import {
  xfsBmbtDiskGetAll,
  xfsBmbtDiskGetStartoff,
  xfsBmbtDiskSetAll,
  xfsBmbtToBmdr,
  xfsBmdrMaxrecs,
  xfsBmdrToBmbt,
} from "../../../../fs/xfs/libxfs/bmap-btree.ts";
import { BmbtIrec } from "../../../../fs/xfs/libxfs/iext.ts";

const words = (view: DataView) =>
  [0, 4, 8, 12].map((at) => view.getUint32(at).toString(16).padStart(8, "0"));

Deno.test("xfsBmbtDiskSetAll() writes records as they are on real images", () => {
  const view = new DataView(new ArrayBuffer(16));
  xfsBmbtDiskSetAll(view, 0, new BmbtIrec().set(16, 24, 16, true));
  assertEquals(words(view).join(" "), "80000000 00002000 00000000 03000010");
});

Deno.test("xfsBmbtDiskGetAll() reads what xfsBmbtDiskSetAll() wrote, to the largest numbers", () => {
  const view = new DataView(new ArrayBuffer(16));
  const got = new BmbtIrec();
  for (const off of [0, 1, 2 ** 23 - 1, 2 ** 23, 2 ** 31 + 5, 2 ** 53 - 1]) {
    for (const block of [1, 2 ** 11, 2 ** 32 + 7, 2 ** 43 + 9, 2 ** 52 - 1]) {
      for (const count of [1, 2 ** 21 - 1]) {
        for (const unwritten of [false, true]) {
          const rec = new BmbtIrec().set(off, block, count, unwritten);
          xfsBmbtDiskSetAll(view, 0, rec);
          xfsBmbtDiskGetAll(view, 0, got);
          assertEquals(got, rec);
          assertEquals(xfsBmbtDiskGetStartoff(view, 0), off);
        }
      }
    }
  }
});

Deno.test("xfsBmdrToBmbt() and xfsBmbtToBmdr() keep level, keys and pointers", () => {
  const size = 192;
  const disk = new Uint8Array(8 + size);
  const view = new DataView(disk.buffer, 8);
  assertEquals(xfsBmdrMaxrecs(size), 11);
  view.setUint16(0, 2);
  view.setUint16(2, 3);
  for (let i = 0; i < 3; i++) {
    view.setUint32(4 + 8 * i + 4, 100 + i);
    view.setUint32(92 + 8 * i + 4, 200 + i);
  }
  const broot = xfsBmdrToBmbt(disk, 8, size);
  const again = new Uint8Array(8 + size);
  xfsBmbtToBmdr(broot, again, 8, size);
  assertEquals(again, disk);
});
