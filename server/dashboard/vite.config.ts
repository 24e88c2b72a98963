import { defineConfig } from 'vitest/config'

// The page's Content-Security-Policy allows files of this server and nothing else, so nothing is inlined.
export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: '../static',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    reportCompressedSize: false,
  },
  server: {
    // `npx vite` beside a running `cody serve`: the server refuses foreign origins, so the request is made its own.
    proxy: {
      '^/(api|readyz|healthz|metrics)': { target: 'http://127.0.0.1:8899', changeOrigin: true },
    },
  },
  test: { include: ['test/**/*.test.ts'], environment: 'node' },
})
