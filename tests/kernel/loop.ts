/**
 * Images mounted by the kernel, and the programs that judge them.
 *
 * @module
 */

/** What a program said. */
export interface Output {
  code: number;
  text: string;
}

/** Runs a program. */
export function run(
  program: string,
  args: string[],
  env: Record<string, string> = {},
): Output {
  const { code, stdout, stderr } = new Deno.Command(program, { args, env })
    .outputSync();
  const decoder = new TextDecoder("latin1");
  return { code, text: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** Why this machine cannot mount images; null if it can. */
export function whyNot(): string | null {
  if (Deno.uid() !== 0) return "it takes root";
  for (const program of ["mkfs.xfs", "xfs_repair", "mount", "umount"]) {
    try {
      run(program, ["-V"]);
    } catch {
      return `there is no ${program}`;
    }
  }
  const dir = Deno.makeTempDirSync({ prefix: "xfs-probe-" });
  try {
    const image = `${dir}/image`;
    mkfs(image, 64 * 2 ** 20, []);
    withMount(image, `${dir}/mnt`, () => {});
    return null;
  } catch (error) {
    // A container, say, or a kernel without XFS or loop devices.
    return `nothing can be mounted: ${(error as Error).message.split("\n")[0]}`;
  } finally {
    Deno.removeSync(dir, { recursive: true });
  }
}

/** Makes a sparse image with mkfs.xfs, of any size. */
export function mkfs(path: string, size: number, args: string[]): void {
  Deno.writeFileSync(path, new Uint8Array(0));
  Deno.truncateSync(path, size);
  // All three set, mkfs.xfs makes small ones, too.
  const env = { TEST_DIR: "x", TEST_DEV: "x", QA_CHECK_FS: "x" };
  const { code, text } = run("mkfs.xfs", ["-q", "-f", ...args, path], env);
  if (code !== 0) throw new Error(`mkfs.xfs ${args.join(" ")}: ${text}`);
}

/** Mounts an image for as long as `use` takes. */
export function withMount(
  path: string,
  dir: string,
  use: () => void,
  options = "loop",
): void {
  Deno.mkdirSync(dir, { recursive: true });
  // The same seed makes the same UUID; somebody else may have mounted such an image.
  const o = `${options},nouuid`;
  const { code, text } = run("mount", ["-t", "xfs", "-o", o, path, dir]);
  if (code !== 0) throw new Error(`mount ${path}: ${text}`);
  try {
    use();
  } catch (error) {
    run("umount", [dir]);
    throw error;
  }
  const done = run("umount", [dir]);
  if (done.code !== 0) throw new Error(`umount ${dir}: ${done.text}`);
}

/** What xfs_repair has to complain of; "" if nothing. */
export function repair(path: string, agCount: number): string {
  const force = agCount === 1 ? ["-o", "force_geometry"] : [];
  const { code, text } = run("xfs_repair", ["-n", ...force, path]);
  return code === 0 ? "" : text;
}
