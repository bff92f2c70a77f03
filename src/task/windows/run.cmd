@echo off
rem Written by snf-image: what is to be done once. Windows runs it in the specialize pass, and
rem again ("last") from SetupComplete.cmd, which then deletes this directory.
setlocal EnableExtensions DisableDelayedExpansion
set "SNF_LOG=%SystemRoot%\Temp\snf-image.log"
set "SNF_FAILED="
if exist "%~dp0extend.cmd" call "%~dp0extend.cmd" >> "%SNF_LOG%" 2>&1
if exist "%~dp0password.cmd" call :password >> "%SNF_LOG%" 2>&1
rem A password that could not be set is tried again at the end. Remote desktop stays shut until then.
if defined SNF_FAILED if not "%~1"=="last" exit /b 0
if not defined SNF_FAILED if exist "%~dp0remote-desktop.cmd" call "%~dp0remote-desktop.cmd" >> "%SNF_LOG%" 2>&1
for %%f in ("%~dp0extend.cmd" "%~dp0password.cmd" "%~dp0remote-desktop.cmd") do if exist "%%~f" call :wipe "%%~f"
if not "%~1"=="last" exit /b 0
for %%f in (@ANSWER@ "%SystemRoot%\Panther\unattend.xml" "%SystemRoot%\Panther\unattend-original.xml" "%SystemRoot%\Panther\Unattend\unattend.xml") do if exist "%%~f" call :wipe "%%~f"
exit /b 0

:password
call "%~dp0password.cmd"
if errorlevel 1 set "SNF_FAILED=1"
exit /b 0

:wipe
attrib -r -h -s "%~1" >nul 2>&1
fsutil file setzerodata offset=0 length=%~z1 "%~1" >nul 2>&1
del /f /q "%~1"
exit /b 0
