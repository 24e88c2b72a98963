import { expect, test } from 'vitest'
import { diffFiles, diffLines, looksLikeDiff } from '../src/text/diff'

const UNIFIED = `diff --git a/x.py b/x.py
index 1a2b3c..4d5e6f 100644
--- a/x.py
+++ b/x.py
@@ -1,3 +1,3 @@
 same
-old
--- a dashed line that was deleted
+new
`

const PATCH = `*** Begin Patch
*** Update File: x.py
@@ def f():
-    return 1
+    return 2
*** Add File: y.py
+whole
*** End Patch
`

const kinds = (text: string): string[] => diffLines(text).map((line) => line.kind)

test('a unified diff, with a deleted line that looks like a file', () => {
  expect(kinds(UNIFIED)).toEqual(['file', 'file', 'file', 'file', 'hunk', 'same', 'del', 'del', 'add'])
})

test('the patches of codex', () => {
  expect(kinds(PATCH)).toEqual(['file', 'file', 'hunk', 'del', 'add', 'file', 'add', 'file'])
})

test('no line is lost or changed', () => {
  expect(`${diffLines(UNIFIED).map((line) => line.text).join('\n')}\n`).toBe(UNIFIED)
})

test('a list with dashes is no diff', () => {
  expect(looksLikeDiff('--- heading\n- one\n+ two\n')).toBe(false)
  expect(looksLikeDiff(UNIFIED)).toBe(true)
  expect(looksLikeDiff(`apply_patch <<'E'\n${PATCH}`)).toBe(true)
  expect(kinds('- one\n+ two')).toEqual(['same', 'same'])
})

test('a diff file by file, with what happened to each', () => {
  const text = [
    '--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n-- x\n++ y\n same\n',
    '--- /dev/null\n+++ b/empty.txt\n',
    '--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+one\n',
    '--- a/old.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n\\ No newline at end of file\n',
  ]
  const files = diffFiles(text.join(''))
  expect(files.map(({ path, change, added, deleted }) => [path, change, added, deleted])).toEqual([
    ['x.py', 'update', 1, 1],
    ['empty.txt', 'add', 0, 0],
    ['new.txt', 'add', 1, 0],
    ['old.txt', 'delete', 0, 1],
  ])
  expect(files[0]?.lines.map((line) => line.text)).toEqual(['@@ -1,2 +1,2 @@', '-- x', '++ y', ' same'])
})

test("the files of codex' own patches", () => {
  expect(diffFiles(PATCH).map(({ path, change, added, deleted }) => [path, change, added, deleted])).toEqual([
    ['x.py', 'update', 1, 1],
    ['y.py', 'add', 1, 0],
  ])
  expect(diffFiles('')).toEqual([])
})

test('lines that look like the names of files are lines while the hunk has some left', () => {
  const text = '--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- old\n--- old too\n+++ new\n+++ new too\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n'
  expect(kinds(text)).toEqual(['file', 'file', 'hunk', 'del', 'del', 'add', 'add', 'file', 'file', 'hunk', 'del', 'add'])
})
