import { assertEquals } from "@std/assert";
import { codeOf, codeOfAsync, ramMount } from "./ramfs.ts";
import type { Mount } from "../../fs/mount.ts";

/** d/e/f is a file, also named g; d/h is empty. */
async function tree() {
  const mounted = await ramMount();
  const { fs } = mounted;
  fs.mkdirSync("d");
  fs.mkdirSync("/d/e/");
  fs.mkdirSync("d/h");
  fs.openSync("d/e/f", { write: true, create: true }).close();
  fs.linkSync("d/e/f", "g");
  return mounted;
}

const LONG = "x".repeat(255);
const create = { write: true, create: true };

// [what, expected code, call]: as XFS on Linux answers, where Linux can be asked.
const table: [string, string, (fs: Mount) => unknown][] = [
  ["open of an empty path", "ENOENT", (fs) => fs.openSync("")],
  ["open of what is absent", "ENOENT", (fs) => fs.openSync("nope")],
  ["open below what is absent", "ENOENT", (fs) => fs.openSync("nope/a")],
  ["open below a file", "ENOTDIR", (fs) => fs.openSync("g/a")],
  ["open of a file with a slash", "ENOTDIR", (fs) => fs.openSync("g/")],
  ["open of a file with a dot", "ENOTDIR", (fs) => fs.openSync("g/.")],
  ["open by way of dots", "none", (fs) => fs.openSync("d/../d/./e/f").close()],
  ["open above the root", "none", (fs) => fs.openSync("../../g").close()],
  ["open of a directory", "none", (fs) => fs.openSync("d").close()],
  ["write open of a directory", "EISDIR", (fs) => {
    fs.openSync("d", { write: true });
  }],
  ["create of a directory", "EISDIR", (fs) => fs.openSync("d", create)],
  ["create of the root", "EISDIR", (fs) => fs.openSync("/", create)],
  ["create with a slash", "EISDIR", (fs) => fs.openSync("new/", create)],
  ["exclusive create of what exists", "EEXIST", (fs) => {
    fs.openSync("g", { write: true, createNew: true });
  }],
  ["exclusive create of a dot", "EEXIST", (fs) => {
    fs.openSync("d/.", { write: true, createNew: true });
  }],
  ["truncating open of a directory", "EISDIR", (fs) => {
    fs.openSync("d", { read: true, truncate: true });
  }],
  ["exclusive create of a directory", "EEXIST", (fs) => {
    fs.openSync("d", { write: true, createNew: true });
  }],
  ["create of 255 bytes", "none", (fs) => fs.openSync(LONG, create).close()],
  ["create of 256 bytes", "ENAMETOOLONG", (fs) => {
    fs.openSync(LONG + "x", create);
  }],
  ["create of 258 bytes in 86 characters", "ENAMETOOLONG", (fs) => {
    fs.openSync("€".repeat(86), create);
  }],
  ["create of 255 bytes in 85 characters", "none", (fs) => {
    fs.openSync("€".repeat(85), create).close();
  }],
  ["truncate of a file on a read-only file system", "EROFS", (fs) => {
    fs.superBlock.readOnly = true;
    fs.truncateSync("g");
  }],
  ["lookup of 256 bytes", "ENAMETOOLONG", (fs) => fs.statSync(LONG + "x")],
  ["path of 4096 bytes", "ENAMETOOLONG", (fs) => {
    fs.statSync("/".repeat(4096));
  }],
  ["path of 4095 bytes", "none", (fs) => fs.statSync("/".repeat(4095))],
  ["path with a NUL", "EINVAL", (fs) => fs.statSync("a\0b")],
  ["path with half a surrogate pair", "EILSEQ", (fs) => {
    fs.statSync("a\ud800");
  }],
  ["path that is a number", "EINVAL", (fs) => fs.statSync(1 as never)],
  ["mkdir of what exists", "EEXIST", (fs) => fs.mkdirSync("g")],
  ["mkdir of the root", "EEXIST", (fs) => fs.mkdirSync("/")],
  ["mkdir of a dot", "EEXIST", (fs) => fs.mkdirSync("d/.")],
  ["mkdir below a file", "ENOTDIR", (fs) => fs.mkdirSync("g/a")],
  ["mkdir below nothing", "ENOENT", (fs) => fs.mkdirSync("no/a")],
  ["unlink of nothing", "ENOENT", (fs) => fs.unlinkSync("no")],
  ["unlink of a directory", "EISDIR", (fs) => fs.unlinkSync("d")],
  ["unlink of nothing with a slash", "ENOENT", (fs) => fs.unlinkSync("no/")],
  ["unlink of the root", "EISDIR", (fs) => fs.unlinkSync("/")],
  ["unlink of a file with a slash", "ENOTDIR", (fs) => fs.unlinkSync("g/")],
  ["unlink of a directory with a slash", "EISDIR", (fs) => fs.unlinkSync("d/")],
  ["rmdir of nothing", "ENOENT", (fs) => fs.rmdirSync("no")],
  ["rmdir of a file", "ENOTDIR", (fs) => fs.rmdirSync("g")],
  ["rmdir of the root", "EBUSY", (fs) => fs.rmdirSync("/")],
  ["rmdir of a dot", "EINVAL", (fs) => fs.rmdirSync("d/h/.")],
  ["rmdir of dot-dot", "ENOTEMPTY", (fs) => fs.rmdirSync("d/h/..")],
  ["rmdir of what is not empty", "ENOTEMPTY", (fs) => fs.rmdirSync("d")],
  ["rmdir of an empty directory", "none", (fs) => fs.rmdirSync("d/h/")],
  ["remove of a file", "none", (fs) => fs.removeSync("g")],
  ["remove of an empty directory", "none", (fs) => fs.removeSync("d/h")],
  ["link of a directory", "EPERM", (fs) => fs.linkSync("d", "x")],
  ["link of a directory to what exists", "EEXIST", (fs) => {
    fs.linkSync("d", "g");
  }],
  ["link of nothing", "ENOENT", (fs) => fs.linkSync("no", "x")],
  ["link to what exists", "EEXIST", (fs) => fs.linkSync("g", "d/e/f")],
  ["link to a name with a slash", "ENOENT", (fs) => fs.linkSync("g", "x/")],
  ["rename of nothing", "ENOENT", (fs) => fs.renameSync("no", "x")],
  ["rename of the root", "EBUSY", (fs) => fs.renameSync("/", "x")],
  ["rename to a dot", "EBUSY", (fs) => fs.renameSync("g", "d/.")],
  ["rename to itself", "none", (fs) => fs.renameSync("d", "d")],
  ["rename between links", "none", (fs) => fs.renameSync("g", "d/e/f")],
  ["rename into the own subtree", "EINVAL", (fs) => {
    fs.renameSync("d", "d/e/x");
  }],
  ["rename onto an ancestor", "ENOTEMPTY", (fs) => fs.renameSync("d/e", "d")],
  ["rename of a file onto a directory", "EISDIR", (fs) => {
    fs.renameSync("g", "d/h");
  }],
  ["rename of a directory onto a file", "ENOTDIR", (fs) => {
    fs.renameSync("d/h", "g");
  }],
  ["rename of a file to a name with a slash", "ENOTDIR", (fs) => {
    fs.renameSync("g", "x/");
  }],
  ["rename of a file with a slash", "ENOTDIR", (fs) => {
    fs.renameSync("g/", "x");
  }],
  ["rename of a file below itself", "ENOTDIR", (fs) => {
    fs.renameSync("g", "g/x");
  }],
  ["rename to 256 bytes", "ENAMETOOLONG", (fs) => {
    fs.renameSync("g", LONG + "x");
  }],
  ["rename of a directory to a name with a slash", "none", (fs) => {
    fs.renameSync("d/h", "x/");
  }],
  ["rename of a directory onto an empty one", "none", (fs) => {
    fs.renameSync("d/e", "d/h/");
  }],
  ["rename onto what is not empty", "EEXIST", (fs) => {
    fs.renameSync("d/h", "d/e");
  }],
  ["truncate of a directory", "EISDIR", (fs) => fs.truncateSync("d", 1)],
  ["truncate below 0", "EINVAL", (fs) => fs.truncateSync("g", -1)],
  ["truncate beyond the largest file", "EFBIG", (fs) => {
    fs.truncateSync("g", 2 ** 40 + 1);
  }],
  ["list of a file", "ENOTDIR", (fs) => fs.readDirSync("g")],
];

for (const [what, code, call] of table) {
  Deno.test(`${what} answers ${code}`, async () => {
    await using mounted = (await tree()).fs;
    assertEquals(codeOf(() => call(mounted)), code);
  });
}

Deno.test("a failed change changes nothing", async () => {
  const { fs } = await tree();
  const before = list(fs, "/");
  for (const [, code, call] of table) {
    if (code !== "none") codeOf(() => call(fs));
  }
  assertEquals(list(fs, "/"), before);
  await fs.unmount();
});

function list(fs: Mount, path: string): string[] {
  const out: string[] = [];
  for (const { name, isDirectory } of fs.readDirSync(path)) {
    out.push(path + name);
    if (isDirectory) out.push(...list(fs, `${path}${name}/`));
  }
  return out.sort();
}

Deno.test("rename() moves a directory with all below it", async () => {
  const { fs } = await tree();
  fs.renameSync("d", "moved");
  assertEquals(list(fs, "/"), [
    "/g",
    "/moved",
    "/moved/e",
    "/moved/e/f",
    "/moved/h",
  ]);
  assertEquals(fs.statSync("moved/e/..").ino, fs.statSync("moved").ino);
  assertEquals(codeOf(() => fs.statSync("d")), "ENOENT");
  fs.renameSync("moved/e", "e");
  assertEquals(fs.statSync("e/..").ino, fs.statSync("/").ino);
  await fs.unmount();
});

Deno.test("rename() evicts what it replaces", async () => {
  const { fs, ram } = await tree();
  fs.openSync("a", create).close();
  const { ino } = fs.statSync("a");
  fs.renameSync("g", "a");
  assertEquals(ram.evicted, [ino]);
  assertEquals(fs.statSync("a").nlink, 2);
  await fs.unmount();
});

Deno.test("unlink() keeps an open file until its last close", async () => {
  const { fs, ram } = await tree();
  const file = fs.openSync("a", { read: true, ...create });
  file.writeSync(new Uint8Array([1, 2]), { at: 0 });
  fs.unlinkSync("a");
  assertEquals(codeOf(() => fs.openSync("a")), "ENOENT");
  assertEquals(file.readSync(new Uint8Array(5), { at: 0 }), 2);
  assertEquals(file.statSync().nlink, 0);
  assertEquals(ram.evicted, []);
  const { ino } = file.statSync();
  file.close();
  assertEquals(ram.evicted, [ino]);
  await fs.unmount();
});

Deno.test("lookup() finds a name once when two tasks ask at the same time", async () => {
  const asked: string[] = [];
  const { fs } = await ramMount({
    lookup: (name) => {
      asked.push(name);
      return Promise.resolve();
    },
  });
  (await fs.open("a", create)).close();
  const [one, two] = await Promise.all([fs.stat("a"), fs.stat("a")]);
  assertEquals(one.ino, two.ino);
  await Promise.all([1, 2, 3].map(() => codeOfAsync(() => fs.stat("b"))));
  // Those that came while the first was on its way asked too; nobody after it.
  asked.length = 0;
  assertEquals(await codeOfAsync(() => fs.stat("b")), "ENOENT");
  assertEquals(asked, []);
  await fs.unmount();
});

Deno.test("open() makes a file once when two tasks create it", async () => {
  const { fs } = await ramMount({ lookup: () => Promise.resolve() });
  const codes = await Promise.all([1, 2, 3].map(() =>
    codeOfAsync(async () => {
      (await fs.open("a", { write: true, createNew: true })).close();
    })
  ));
  assertEquals(codes.sort(), ["EEXIST", "EEXIST", "none"]);
  await fs.unmount();
});

Deno.test("mkdir() answers ENOENT in a directory that was removed meanwhile", async () => {
  const { fs } = await ramMount({ lookup: () => Promise.resolve() });
  await fs.mkdir("d");
  const codes = await Promise.all([
    codeOfAsync(() => fs.rmdir("d")),
    codeOfAsync(() => fs.mkdir("d/a")),
  ]);
  assertEquals(codes, ["none", "ENOENT"]);
  await fs.unmount();
});

Deno.test("renames across directories in both directions do not wait for each other", async () => {
  const { fs } = await ramMount({ lookup: () => Promise.resolve() });
  for (const dir of ["a", "b", "a/sub"]) await fs.mkdir(dir);
  for (const name of ["a/1", "b/2", "a/sub/3"]) {
    (await fs.open(name, create)).close();
  }
  await Promise.all([
    fs.rename("a/1", "b/1"),
    fs.rename("b/2", "a/sub/2"),
    fs.rename("a/sub/3", "a/3"),
    fs.rename("a/3", "b/4").catch(() => {}),
  ]);
  const names = list(fs, "/").filter((name) => /\d$/.test(name));
  assertEquals(names, ["/a/sub/2", "/b/1", "/b/4"]);
  await fs.unmount();
});

Deno.test("renames of and below the same two directories do not wait for each other", async () => {
  const gate = Promise.withResolvers<void>();
  const { fs } = await ramMount({
    lookup: (name) => name === "slow" ? gate.promise : undefined,
  });
  fs.mkdirSync("p");
  fs.mkdirSync("p/a");
  fs.mkdirSync("p/b");
  fs.openSync("p/b/f", create).close();
  const slow = codeOfAsync(() => fs.stat("p/a/slow"));
  const outer = codeOfAsync(() => fs.rename("p/a", "p/b"));
  const inner = codeOfAsync(() => fs.rename("p/b/f", "p/a/f"));
  gate.resolve();
  const codes = await Promise.all([slow, outer, inner]);
  assertEquals(codes, ["ENOENT", "EEXIST", "none"]);
  await fs.unmount();
});

Deno.test("a synchronous call answers EAGAIN when a task holds the directory", async () => {
  const gate = Promise.withResolvers<void>();
  const { fs } = await ramMount({
    lookup: (name) => name === "slow" ? gate.promise : undefined,
  });
  const slow = fs.open("slow", create);
  assertEquals(codeOf(() => fs.mkdirSync("quick")), "EAGAIN");
  gate.resolve();
  (await slow).close();
  assertEquals(list(fs, "/"), ["/slow"]);
  await fs.unmount();
});

Deno.test("names that do not exist are forgotten in the end", async () => {
  const { fs } = await ramMount();
  for (let i = 0; i < 10_000; i++) codeOf(() => fs.statSync(`no${i}`));
  const { root } = fs.superBlock.dcache;
  assertEquals(root.children!.size, 4096);
  await fs.unmount();
});

Deno.test("mkdir() answers EMLINK when the parent is full", async () => {
  const { fs } = await ramMount();
  fs.superBlock.maxLinks = 3;
  fs.mkdirSync("a");
  assertEquals(codeOf(() => fs.mkdirSync("b")), "EMLINK");
  fs.mkdirSync("a/b");
  assertEquals(codeOf(() => fs.renameSync("a/b", "b")), "EMLINK");
  fs.openSync("f", create).close();
  fs.linkSync("f", "f2");
  fs.linkSync("f", "f3");
  assertEquals(codeOf(() => fs.linkSync("f", "f4")), "EMLINK");
  await fs.unmount();
});
