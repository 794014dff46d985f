// What the check of a client in JavaScript says: one line for each thing that it has tried. See tried.py.

import { execFileSync } from "node:child_process";

export const { MODEL, SCRIPTED_URL, SCRIPTED_KEY, SCRIPTED_MODEL } = process.env;

export async function tried(what, attempt) {
  try {
    await attempt();
    console.log(`ok: ${what}`);
  } catch (error) {
    console.error(error);
    const said = String(error).split("\n")[0].slice(0, 300);
    console.log(`FAILED: ${what}: ${said}`);
    process.exitCode = 1;
  }
}

export function expect(condition, what) {
  if (!condition) throw new Error(`got ${JSON.stringify(what)}`);
}

// What the recipe of the guide prints; it lies beside the check.
export function recipe() {
  return execFileSync(process.execPath, ["recipe.mjs"], { cwd: import.meta.dirname, encoding: "utf8", timeout: 240000 });
}
