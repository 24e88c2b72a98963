// The page begins here.

import 'uplot/dist/uPlot.min.css'
import './styles/theme.css'
import './styles/base.css'
import './styles/runs.css'
import './styles/run.css'
import './styles/log.css'
import { render } from 'preact'
import { useStore } from './model/store'
import { Health } from './pages/Health'
import { NewRun } from './pages/NewRun'
import { Run } from './pages/Run'
import { Runs } from './pages/Runs'
import { place, startRouter } from './router'
import { Empty } from './ui/bits'
import { Shell } from './ui/Shell'

function App() {
  const { route } = useStore(place)
  return (
    <Shell>
      {route.page === 'runs' && <Runs />}
      {route.page === 'run' && <Run key={route.runId} runId={route.runId} />}
      {route.page === 'new' && <NewRun />}
      {route.page === 'health' && <Health />}
      {route.page === 'unknown' && (
        <Empty isPage title="There is nothing at this address">
          <a href="/">All runs</a>
        </Empty>
      )}
    </Shell>
  )
}

startRouter()
const root = document.getElementById('app')
if (root) render(<App />, root)
